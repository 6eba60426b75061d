"""The demo room: an entry point that shows the whole pipeline on a fresh computer.

It starts its own Postgres (`embedded_postgres`) and Airflow (`airflow_server`, whose parts are the
children of `airflow_parts`). It generates readings (`generator`, `feeder`) or loads the user's
file, trains a model (`first_version`), lets the DAGs score, and prints verdicts and a log-in;
`superset_server` shows them in a dashboard. `processes` lets Airflow, Superset and the feeder
outlive the command. Tests and benchmarks use its Postgres too. It may import every room except
`cli`; no room imports it.
"""
