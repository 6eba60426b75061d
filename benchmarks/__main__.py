"""``make bench``: measure on a Postgres and an Airflow of its own; a table, also in the docs."""

from benchmarks import airflow_tick, fleet, pipeline, reading, records, step_tables, tick, wall_time
from benchmarks.deployments import deployment
from benchmarks.figures import show


def main() -> None:
    """Measure everything."""
    with deployment() as (database, settings):
        figures = pipeline.measure(database, settings)
    with deployment() as (database, settings):
        figures += tick.measure(database, settings)
    with deployment() as (database, settings):
        figures += wall_time.measure(database, settings)
    with deployment() as (database, settings):
        figures += airflow_tick.measure(database, settings)
    with deployment() as (database, _):
        figures += reading.measure(database)
    show([*figures, *step_tables.measure(), *records.measure(), *fleet.measure()])


if __name__ == "__main__":
    main()
