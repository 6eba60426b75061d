"""``make bench``: start a Postgres of its own, measure, print the table, write it to the docs."""

from benchmarks import fleet, pipeline, records, step_tables, tick, wall_time
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
    show([*figures, *step_tables.measure(), *records.measure(), *fleet.measure()])


if __name__ == "__main__":
    main()
