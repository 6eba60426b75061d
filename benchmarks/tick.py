"""A tick of 100,000 machines: how long its task works, and how much memory it takes.

Run as ``python -m benchmarks.tick DATABASE_URL MODELS DETECTOR``, one process a tick, so that
memory is the tick's alone.
"""

import json
import resource
import subprocess
import sys
import time
from datetime import timedelta

from benchmarks.figures import Figure, saying
from benchmarks.pipeline import QUARTER, START, fill_long_table, long_layout, make_long_table

MACHINES = 100_000
SCORED = timedelta(hours=24)
"""How long the machines have been scored before the tick that is measured."""


def measure(database, settings) -> list[Figure]:  # type: ignore[no-untyped-def]
    """Time one tick with each detector; the first tick, which scores the day before, is not timed."""
    from anomaly.settings import DetectorName
    from anomaly.training import Trainer
    from anomaly.windows import Window

    ticks = SCORED // QUARTER + 1
    with saying(f"a long meter table of {MACHINES:,} machines x {ticks} ticks"):
        make_long_table(database)
        fill_long_table(database, MACHINES, ticks)
    figures = []
    limits = {DetectorName.PROTOTYPE: (5.0, 700.0), DetectorName.SIGNALS: (30.0, None)}
    for detector, (longest, most) in limits.items():
        chosen = long_layout(settings).model_copy(update={"detector": detector})
        with saying(f"training {detector}"):
            Trainer(database, chosen).train(
                Window(START, START + SCORED), by="bench", put_in_force=True
            )
        url = database.engine.url.render_as_string(hide_password=False)
        for moment in (START + SCORED, START + SCORED + QUARTER):
            with saying(f"{detector}: the tick of {moment:%H:%M}"):
                taken = json.loads(
                    subprocess.run(
                        [sys.executable, "-m", "benchmarks.tick", url, chosen.models_url, detector,
                         moment.isoformat()],
                        check=True, capture_output=True, text=True,
                    ).stdout
                )  # fmt: skip
        name = f"tick of {MACHINES:,} machines, {detector}"
        figures += [
            Figure.below(name, taken["seconds"], "s", longest),
            Figure.below(f"{name}: memory", taken["megabytes"], "MB", most),
        ]
        with database.engine.begin() as connection:
            connection.exec_driver_sql(
                "TRUNCATE anomaly.anomaly_results, anomaly.scoring_runs, anomaly.incidents,"
                " anomaly.model_in_force, anomaly.anomaly_results_history"
            )
    return figures


def run(url: str, models: str, detector: str, moment: str) -> None:
    """Tick once, and print seconds of task time and the peak of resident memory."""
    began = time.perf_counter()
    from datetime import datetime

    from anomaly.postgres.database import Database
    from anomaly.postgres.results import RunContext
    from anomaly.scoring import Scorer
    from anomaly.settings import load_settings
    from anomaly.windows import Window

    settings = long_layout(load_settings({}, models_url=models, detector=detector))
    end = datetime.fromisoformat(moment)
    report = Scorer(Database(url, settings), settings).score_tick(
        Window(end - QUARTER, end), RunContext("bench")
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "megabytes": peak, **report.counts()}))


if __name__ == "__main__":
    run(*sys.argv[1:])
