"""The database room: all SQL of the product, and no business rules.

Each table has one module. Only that module names the table's queries (``sql/queries/<module>/``)
and columns. A function here reads or writes rows and returns plain values, tables or small
dataclasses. Other rooms decide what the rows mean: `scoring` decides which verdicts may be
retracted and how far a change reaches, `incidents` decides what an incident is.

The tables' modules are `machines`, `scoring_runs`, `backfills`, `results`, `incidents`, `labels`,
`model_versions` and `model_in_force`; `alerts` has the outbox and its messages, `sites` has what
people say of sites, `api_keys` who may ask the API, and `sums` keeps the sums per hour and day.
`meter_table` reads the meter table, `meter_table_loading` and `doubled_hours` load readings into
it, and `labelled_readings` reads a table of labels. The others serve them: `connection` and
`connection_limits`, `sql_files`, `binary_copy` (the format of COPY), `explained_errors`,
`migrations`, `retention` (deletes old rows) and `setup` (how a database is set up).

It may import `models` (for the names of a version's files), `readings` and the words that every
room uses. It never imports a room above it, and no other room imports psycopg2 or SQLAlchemy
(`demo`, which starts a Postgres server of its own, aside).
"""
