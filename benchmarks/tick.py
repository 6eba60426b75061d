"""A tick of 100,000 machines: how long its task works, and how much memory it takes.

Run as ``python -m benchmarks.tick DATABASE_URL MODELS DETECTOR``, one process a tick, so that
memory is the tick's alone; without arguments it measures the tick of `signals`, whose training on
as many machines takes too long for ``make bench``.
"""

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import datetime, timedelta

from anomaly.database.connection import Database
from anomaly.database.scoring_runs import RequestedBy
from anomaly.scoring.scorer import Scorer
from anomaly.scoring.ticks import score_tick
from anomaly.settings import DetectorName, Settings, load_settings
from anomaly.windows import Window
from benchmarks.deployments import deployment, train_in_force
from benchmarks.figures import PAGE, Figure, memory, print_table, saying, write_page
from benchmarks.pipeline import QUARTER, START, fill_long_table, long_layout, make_long_table

MACHINES = 100_000


@dataclass(frozen=True)
class Case:
    """A detector, how many hours the machines were metered before, and what a tick may take."""

    detector: DetectorName
    hours: int
    seconds: float
    megabytes: float | None


PROTOTYPE = Case(DetectorName.PROTOTYPE, 4, 5.0, 700.0)
SIGNALS = Case(DetectorName.SIGNALS, 25, 30.0, None)


def measure(
    database: Database, settings: Settings, case: Case = PROTOTYPE, machines: int = MACHINES
) -> list[Figure]:
    """Train, let a first tick go by, and measure the second."""
    chosen = long_layout(settings).changed(detector=case.detector)
    last = START + timedelta(hours=case.hours)
    with saying(f"a long meter table of {machines:,} machines, {case.hours} h"):
        make_long_table(database)
        fill_long_table(database, machines, (last - START) // QUARTER)
    with saying(f"training {case.detector}"):
        train_in_force(database, chosen, Window(START, last))
    url = database.engine.url.render_as_string(hide_password=False)
    for moment in (last - QUARTER, last):
        with saying(f"the tick of {moment:%H:%M}"):
            command = [sys.executable, "-m", "benchmarks.tick", url, chosen.models.models_url]
            command += [case.detector, moment.isoformat()]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
    taken = json.loads(done.stdout)
    name = f"tick of {machines:,} machines, {case.detector}"
    shown = f"{taken['read']:,} read, {taken['inserted']:,} new"
    return [
        Figure.below(f"{name} ({shown})", taken["seconds"], "s", case.seconds),
        Figure.below(f"{name}: resident memory", taken["megabytes"], "MB", case.megabytes),
    ]


def run(url: str, models: str, detector: str, moment: str) -> None:
    """Tick once, and print seconds of task time and the peak of resident memory."""
    began = time.perf_counter()
    settings = long_layout(load_settings({}, models_url=models, detector=detector))
    end = datetime.fromisoformat(moment)
    scorer = Scorer(Database(url, settings.database), settings)
    report = score_tick(scorer, Window(end - QUARTER, end), RequestedBy("bench"))
    seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "megabytes": memory(), **report.counts()}))


def main() -> None:
    """Measure the tick of `signals`, print it and write it to the docs."""
    with deployment() as (database, settings):
        figures = measure(database, settings, SIGNALS)
    print_table(figures)
    write_page(PAGE, "bench-tick", figures)


if __name__ == "__main__":
    main() if len(sys.argv) == 1 else run(*sys.argv[1:])
