"""``make bench-large``: a year of 1,000 machines streams through in flat memory, in linear time.

Run as ``python -m benchmarks.large DATABASE_URL MODELS END``, one process a range, so that
memory is that range's alone.
"""

import json
import sys
import time
from datetime import datetime

from anomaly.database.connection import Database
from anomaly.settings import DetectorName, Settings
from anomaly.windows import Window
from benchmarks.deployments import train_in_force
from benchmarks.figures import Figure, in_a_process, memory, saying
from benchmarks.pipeline import (
    QUARTER,
    START,
    TRAINED,
    forget_results,
    long_layout,
    make_long_table,
)

MACHINES = 1_000
READINGS = (10_000, 100_000, 1_000_000, 10_000_000, 35_040_000)
"""The last is a year of quarter-hours."""
MOST_MEGABYTES = 1_000.0
LINEAR = 1.5
"""A reading of the whole year may take this many times what one of 1e6 takes."""

_FILL = """
INSERT INTO plant.readings (machine_id, utc_timestamp, reading)
SELECT machine,
       timestamptz '{start}' + tick * interval '15 minutes',
       floor(exp(1 + machine % 7 / 3.0)
             * (tick / 4.0 + sin(tick * pi() / 48) / 3 + random() / 50) * 1000) / 1000
  FROM generate_series({first}, {last}) AS tick,
       generate_series(1, {machines}) AS machine
"""


def measure(
    database: Database, settings: Settings, sizes: tuple[int, ...] = READINGS
) -> list[Figure]:
    """Score ever longer ranges of one table, each from nothing."""
    chosen = long_layout(settings).changed(detector=DetectorName.PROTOTYPE)
    with saying(f"a long meter table of {sizes[-1]:,} readings"):
        make_long_table(database)
        fill_in_postgres(database, sizes[-1] // MACHINES)
    train_in_force(database, chosen, TRAINED)
    figures, per_million = [], {}
    for readings in sizes:
        taken = _score(database, chosen, readings)
        per_million[readings] = taken["seconds"] / readings * 1e6
        name = f"{readings:,} readings of {MACHINES:,} machines"
        figures += [
            Figure(f"{name}: {per_million[readings]:.1f} us each", taken["seconds"], "s"),
            Figure.below(f"{name}: memory", taken["megabytes"], "MB", MOST_MEGABYTES),
        ]
        forget_results(database)
    return [*figures, _linearity(per_million)]


def _linearity(per_million: dict[int, float]) -> Figure:
    """How much longer a reading of the longest range takes than one of a million."""
    longest = max(per_million)
    shorter = max((size for size in per_million if size < longest and size <= 1e6), default=longest)
    return Figure.at_most(
        f"a million of {longest:,} readings",
        per_million[longest],
        "s",
        f"of {shorter:,}: {per_million[shorter]:.1f} s",
        per_million[shorter],
        LINEAR,
    )


def fill_in_postgres(database: Database, ticks: int, step: int = 960) -> None:
    """Readings made by the database itself: counters with a day's rhythm; then the key."""
    with database.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE plant.readings DROP CONSTRAINT readings_pkey")
    for first in range(0, ticks, step):
        last = min(first + step, ticks) - 1
        with database.engine.begin() as connection:
            connection.exec_driver_sql(
                _FILL.format(
                    start=START.isoformat(), first=first, last=last, machines=MACHINES
                ).replace("%", "%%")
            )
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(
            "ALTER TABLE plant.readings ADD PRIMARY KEY (utc_timestamp, machine_id)"
        )
        connection.exec_driver_sql("VACUUM (ANALYZE) plant.readings")


def _score(database: Database, settings: Settings, readings: int) -> dict[str, float]:
    end = START + readings // MACHINES * QUARTER
    url = database.engine.url.render_as_string(hide_password=False)
    with saying(f"{readings:,} readings"):
        taken: dict[str, float] = in_a_process(
            "benchmarks.large", url, settings.models.models_url, end.isoformat()
        )
    if taken["scored"] != readings:
        raise AssertionError(f"{taken['scored']} of {readings} readings were scored")
    return taken


def run(url: str, models: str, end: str) -> None:
    """Score from the first reading on, and print seconds and the peak of resident memory."""
    from anomaly.database.results import Origin
    from anomaly.database.scoring_runs import RequestedBy
    from anomaly.scoring.publishing import Job
    from anomaly.scoring.scorer import Scorer
    from anomaly.settings import load_settings

    settings = long_layout(load_settings({}, models_url=models))
    window = Window(START, datetime.fromisoformat(end))
    began = time.perf_counter()
    report = Scorer(Database(url, settings.database), settings).score_range(
        window, Job(Origin.BACKFILL, RequestedBy("bench"))
    )
    taken = time.perf_counter() - began
    print(json.dumps({"seconds": taken, "megabytes": memory(), **report.counts()}))


def main() -> None:
    """Measure the curve, print it and write it to the docs."""
    from benchmarks.deployments import deployment
    from benchmarks.figures import PAGE, print_table, write_page

    with deployment() as (database, settings):
        figures = measure(database, settings)
    print_table(figures)
    write_page(PAGE, "bench-large", figures)


if __name__ == "__main__":
    main() if len(sys.argv) == 1 else run(*sys.argv[1:])
