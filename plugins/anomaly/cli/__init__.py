"""The command line ``anomaly``: an entry point that reads options, calls a room, and prints.

`app` lists the commands, and which module each is in: that module is imported when the command
runs. `migrate`, `doctor`, `config`, `ingest`, `backfill`, `status`, `metrics`, `serve` and `purge`
have the command of their name, `training` has `anomaly train`, `scoring` has `anomaly score` and
`anomaly reconcile`, `evaluation` has `anomaly evaluate`; `incidents`, `labels`, `alerts`, `keys`,
`machines`, `sites`, `models` and `dags` have the commands below those names. `console` has what
all commands use: the database, tables, JSON, CSV, and one line on failure. `readings_around` draws
the readings around an incident. Only commands read the clock; the rooms get the time as
an argument. It may import every room except `demo`. Modules that need scikit-learn are imported
inside their command, so that the other commands start quickly.
"""
