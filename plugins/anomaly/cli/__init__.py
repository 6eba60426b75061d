"""The command line ``anomaly``: an entry point that reads options, calls a room, and prints.

`app` has the commands of the first level. `backfill` has `anomaly backfill`, `ingest` has
`anomaly ingest`, `evaluation` has `anomaly evaluate`, `metrics` has `anomaly metrics`;
`incidents`, `labels`, `machines` and `models` have the commands below those names. `console` has
what all commands use: the database, tables, JSON, CSV, and one line on failure. `readings_around`
draws the readings around an incident. Only commands read the clock; the rooms get the time as an
argument. It may import every room except `demo`. Modules that need scikit-learn are imported inside
their command, so that the other commands start quickly.
"""
