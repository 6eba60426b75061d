"""A tick's wall time on five machines, in parts, each tick a process of its own.

Run as ``python -m benchmarks.wall_time DATABASE_URL MODELS START STARTED``: it imports what
the task of `score_readings` imports, scores one tick, and prints seconds a part.
"""

import time

ENTERED = time.time()

import json  # noqa: E402
import os  # noqa: E402
import statistics  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
from typing import TYPE_CHECKING  # noqa: E402

if TYPE_CHECKING:
    from anomaly.database.connection import Database
    from anomaly.settings import Settings
    from benchmarks.figures import Figure

TICKS = 5
DAYS = 21
MOST_SECONDS_OF_IMPORT = 1.0
PARTS = ("process start", "imports", "read", "transform", "score", "write", "bookkeeping")
FILL = f"""
INSERT INTO anomaly.meter_readings
       (utc_timestamp, machine_1, machine_2, machine_3, machine_4, machine_5)
SELECT timestamptz '2026-01-01 00:00Z' + tick * interval '15 minutes',
       tick * 2.5 + random(), tick * 1.5 + random(), tick * 9 + random(),
       tick * 0.5 + random() / 4, tick + random() / 2
  FROM generate_series(0, {DAYS} * 96) AS tick
"""


def measure(database: "Database", settings: "Settings") -> "list[Figure]":
    """The middle of several ticks, each a quarter-hour later, after one that fills caches."""
    from datetime import timedelta

    from anomaly.windows import Window
    from benchmarks.deployments import train_in_force
    from benchmarks.figures import Figure, saying
    from benchmarks.pipeline import QUARTER, START

    with database.engine.begin() as connection:
        connection.exec_driver_sql(FILL)
    last = START + timedelta(days=DAYS)
    with saying(f"{TICKS} ticks of five machines, a process each"):
        learnt = Window(START, last - timedelta(days=1))
        train_in_force(database, settings, learnt)
        ticks = [
            _tick(database, settings, (last - k * QUARTER).isoformat())
            for k in range(TICKS, -1, -1)
        ]
    middle = {part: statistics.median(tick[part] for tick in ticks[1:]) for part in PARTS}
    limits = {"imports": MOST_SECONDS_OF_IMPORT}
    name = "tick of 5 machines, from process start to committed results"
    return [
        Figure(name, sum(middle.values()), "s"),
        *(Figure.below(f"... {part}", middle[part], "s", limits.get(part)) for part in PARTS),
    ]


def _tick(database: "Database", settings: "Settings", start: str) -> dict[str, float]:
    url = database.engine.url.render_as_string(hide_password=False)
    # Python keeps the compiled modules unless told otherwise; compiling is not what is measured.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    arguments = [url, settings.models.models_url, start, str(time.time())]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.wall_time", *arguments],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    parts: dict[str, float] = json.loads(done.stdout)
    return parts


# Within the process -----------------------------------------------------------


def run(url: str, models: str, start: str, started: str) -> None:
    """Score one tick, and print the parts."""
    from benchmarks.clock import Clock

    clock = Clock()
    clock.watch()
    clock.taken["process start"] = ENTERED - float(started)

    from datetime import datetime, timedelta

    from anomaly.database.connection import Database
    from anomaly.database.migrations import check_migrated
    from anomaly.database.scoring_runs import RequestedBy
    from anomaly.scoring.scorer import Scorer
    from anomaly.scoring.ticks import score_tick
    from anomaly.settings import load_settings
    from anomaly.windows import Window

    began = time.perf_counter()
    settings = load_settings({}, models_url=models)
    database = Database(url, settings.database)
    check_migrated(database)
    opened = time.perf_counter() - began
    moment = datetime.fromisoformat(start)
    interval = Window(moment, moment + timedelta(minutes=settings.meter.interval_minutes))
    report = score_tick(Scorer(database, settings), interval, RequestedBy("bench"))
    if not report.scored:
        raise AssertionError("nothing was scored")
    clock.taken["bookkeeping"] += opened
    print(json.dumps(clock.taken))


if __name__ == "__main__":
    run(*sys.argv[1:])
