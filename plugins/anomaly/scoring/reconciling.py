"""Compare readings with verdicts both ways, and re-score what differs."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta

from anomaly.database.connection import Database
from anomaly.database.results import Origin
from anomaly.database.scoring_runs import RequestedBy
from anomaly.scoring.mismatches import Mismatches
from anomaly.scoring.publishing import Job, ScoreReport
from anomaly.scoring.retraction import may_retract
from anomaly.scoring.scorer import Scorer
from anomaly.settings import Settings
from anomaly.windows import Window, spans


@dataclass(frozen=True)
class ReconcileReport:
    """What a reconciliation found and repaired."""

    compared: int = 0
    missing: int = 0
    changed: int = 0
    deleted: int = 0
    scores: ScoreReport = field(default_factory=ScoreReport)


class Reconciler:
    """Finds and repairs what ticks have missed: late, corrected and deleted readings."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self.database = database
        self.settings = settings
        self.scorer = Scorer(database, settings)

    def reconcile(
        self,
        window: Window,
        requested_by: RequestedBy,
        *,
        origin: Origin = Origin.LATE,
        allow_retract: bool = False,
        dry_run: bool = False,
    ) -> ReconcileReport:
        """Compare `window`, then re-score only where something differs.

        Verdicts without a reading are retracted together or not at all: at most
        the settings' share of the whole window, unless `allow_retract`.

        Raises
        ------
        NoModelError
            When no version is in force for a part of the window.
        """
        longest = self.scorer.longest_chunk()
        found = [
            (chunk, self.scorer.find_mismatches(chunk, register=not dry_run))
            for chunk in window.chunks(longest)
        ]
        verdicts = sum(mismatches.verdicts for _, mismatches in found)
        deleted = sum(len(mismatches.deleted) for _, mismatches in found)
        tolerable = allow_retract or may_retract(deleted, verdicts, self.settings.scoring)
        job = Job(origin, requested_by, retractable=deleted if tolerable else 0, dry_run=dry_run)
        scores = ScoreReport()
        for span in self._spans(found, longest):
            scores += self.scorer.score_window(span, job)
        return ReconcileReport(
            compared=verdicts,
            missing=sum(len(mismatches.missing) for _, mismatches in found),
            changed=sum(len(mismatches.changed) for _, mismatches in found),
            deleted=deleted,
            scores=scores,
        )

    def _spans(
        self, found: list[tuple[Window, Mismatches]], longest: timedelta
    ) -> Iterator[Window]:
        for chunk, mismatches in found:
            for span in spans(mismatches.moments, self.settings.meter.interval, longest):
                yield Window(span.start, min(span.end, chunk.end))
