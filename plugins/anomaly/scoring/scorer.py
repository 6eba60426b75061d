"""Score windows: the one path that DAGs, the command line, the API and backfills take."""

import random
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd

from anomaly.database.connection import SCORER, Database
from anomaly.database.model_in_force import InForce
from anomaly.database.results import CurrentVerdicts, Origin, read_current
from anomaly.database.scoring_runs import count_overlapping, draw_token, scored_to
from anomaly.errors import DatabaseError, StaleAttemptError
from anomaly.scoring.chunks import longest_chunk
from anomaly.scoring.fencing import Fence
from anomaly.scoring.judging import WindowJudge
from anomaly.scoring.mismatches import Mismatches, find_mismatches
from anomaly.scoring.new_machines import new_machines
from anomaly.scoring.publishing import Attempt, Job, Publisher, ScoreReport
from anomaly.scoring.window_reader import WindowReader
from anomaly.settings import Settings
from anomaly.windows import Window

# An attempt that was overtaken starts again. A dozen times, with pauses of up to five seconds: half
# a minute of nothing but other attempts on the same window is a fault, not bad luck.
_ATTEMPTS = 12
_LONGEST_PAUSE = 5.0


class Scorer:
    """Scores windows of one deployment.

    Parameters
    ----------
    database : Database
    settings : Settings
    assumed : InForce, optional
        Judge as if this version were in force; only for windows that are not written.
    """

    def __init__(
        self, database: Database, settings: Settings, assumed: InForce | None = None
    ) -> None:
        self.database = database
        self.settings = settings
        self.reader = WindowReader(settings.meter_table, settings.meter)
        self.judge = WindowJudge(self.reader, settings.models, settings.meter, assumed)
        self.publisher = Publisher(database, self.reader.source, self.judge, settings)

    def score_range(self, window: Window, job: Job) -> ScoreReport:
        """Score a range in chunks, oldest first; each is published on its own."""
        total = ScoreReport()
        for chunk in window.chunks(self.longest_chunk()):
            total += self.score_window(chunk, job)
        return total

    def longest_chunk(self) -> timedelta:
        """The longest range that is read and published at once."""
        return longest_chunk(self.database, self.settings.scoring, self.settings.meter.interval)

    def score_window(self, window: Window, job: Job) -> ScoreReport:
        """Read, judge and publish one window; start again when a newer attempt overtakes it.

        Returns
        -------
        ScoreReport
            Counts of what was read, judged and written.

        Raises
        ------
        NoModelError
            When no version is in force for a part of the window.
        StaleAttemptError
            When other attempts overtook this one a dozen times, over half a minute.
        """
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return self._attempt(window, job)
            except StaleAttemptError:
                if attempt == _ATTEMPTS:
                    raise
                # Each waits for a while of its own: of several at once one gets through.
                longest = min(_LONGEST_PAUSE, 0.1 * 2**attempt)
                time.sleep(random.uniform(0, longest))  # noqa: S311 - spreads waits, hides nothing
        raise AssertionError("unreachable")

    def find_mismatches(
        self, window: Window, *, register: bool, machines: Sequence[int] | None = None
    ) -> Mismatches:
        """Compare readings and verdicts of a window exactly (`anomaly.scoring.mismatches`)."""
        return find_mismatches(
            self.database, self.reader, window, self.judge, register=register, machines=machines
        )

    # One attempt --------------------------------------------------------

    def _attempt(self, window: Window, job: Job, *, scan: bool = False) -> ScoreReport:
        run_id = sys.maxsize if job.dry_run else draw_token(self.database)
        shape = self.reader.prepare(self.database, window, scan=scan, register=not job.dry_run)
        machines = [*shape.machines.values()] or None
        if job.machines is not None:
            machines = [*job.machines]
        with ThreadPoolExecutor(1) as aside:  # the server reads while this process judges
            with self.database.transaction(SCORER, read_only=True) as transaction:
                judges = self.judge.judges_of(transaction, window)
                fence = Fence(
                    run_id,
                    window,
                    judges.recorded,
                    count_overlapping(transaction, window, job.machines),
                    job.machines,
                )
                # Only now that the ledger's rows are counted: whoever publishes from here on is
                # seen by the fence, and the attempt starts again.
                coming = aside.submit(self._read_current, window, machines)
                measured = self.reader.read(
                    transaction,
                    shape,
                    window,
                    None if job.machines is None else machines,
                    behind=judges.behind,
                    judged_to=scored_to(transaction),
                )
                source = self.reader.source
                new = {}
                if job.dry_run and job.machines is None:
                    new = new_machines(transaction, source, shape, window)
            verdicts = self.judge.verdicts(measured, judges)
            try:
                current = coming.result()
            except DatabaseError:  # a log-in may have one connection only: one after the other
                current = self._read_current(window, machines)
        if measured.unregistered and not (scan or job.dry_run):
            return self._attempt(window, job, scan=True)
        attempt = Attempt(
            fence=fence,
            verdicts=verdicts.assign(origin=_origins(verdicts, job)),
            machines=measured.machines,
            current=current,
            readings=measured.readings,
            missing=measured.missing,
            duplicates=measured.duplicates,
            new_machines=new,
            ingested_through=measured.ingested_through,
            breaks=self.reader.machines_with_breaks(measured, judges.behind),
        )
        del measured, verdicts  # a publication may wait for the lock: let go of what it has not
        return self.publisher.publish(attempt, shape, job)

    def _read_current(self, window: Window, machines: list[int] | None) -> CurrentVerdicts:
        """Read the verdicts that are there."""
        with self.database.transaction(SCORER, read_only=True) as transaction:
            return read_current(transaction, window, machines)


def _origins(verdicts: pd.DataFrame, job: Job) -> "pd.Categorical[Any]":
    late = np.zeros(len(verdicts), dtype=bool)
    if job.late_before is not None:
        late = (verdicts["utc_timestamp"] < job.late_before).to_numpy()
    names = [origin.value for origin in Origin]
    codes = np.where(late, names.index(Origin.LATE), names.index(job.origin))
    return pd.Categorical.from_codes(codes, dtype=pd.CategoricalDtype(names))
