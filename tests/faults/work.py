"""What a task of a DAG does, as a process of its own: ``python work.py KIND START END``.

An expected failure is one line on standard error and exit code 1, as in a task's log.
"""

import os
import sys
from datetime import timedelta

from anomaly.database.connection import Database
from anomaly.database.explained_errors import EXPLAINED, explained
from anomaly.database.results import Origin
from anomaly.database.scoring_runs import RequestedBy
from anomaly.errors import AnomalyError
from anomaly.lifecycle.training import Trainer
from anomaly.scoring.publishing import Job
from anomaly.scoring.reconciling import Reconciler
from anomaly.scoring.scorer import Scorer
from anomaly.scoring.ticks import score_tick
from anomaly.settings import load_settings
from anomaly.windows import Window
from anomaly.wording import without_secrets

QUARTER = timedelta(minutes=15)


def main(kind: str, start: str, end: str) -> None:
    """Do it."""
    settings = load_settings()
    database = Database(os.environ["ANOMALY_DATABASE_URL"], settings.database)
    window = Window.parse(start, end)
    who = RequestedBy(kind)
    if kind == "tick":
        score_tick(Scorer(database, settings), Window(window.end - QUARTER, window.end), who)
    elif kind == "backfill":
        job = Job(Origin.BACKFILL, who, retractable=1_000_000)
        Scorer(database, settings).score_range(window, job)
    elif kind == "reconcile":
        Reconciler(database, settings).reconcile(window, who)
    elif kind == "train":
        trainer = Trainer(database, settings)
        trainer.register(trainer.train(window), by="tests")
    database.dispose()


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except (AnomalyError, *EXPLAINED) as error:
        print(f"error: {without_secrets(str(explained(error)))}", file=sys.stderr)
        sys.exit(1)
