"""Compare readings with verdicts both ways, and re-score what differs."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta

from anomaly.differences import Differences
from anomaly.postgres.database import Database
from anomaly.postgres.results import RunContext, ScoreReport
from anomaly.schema import Origin
from anomaly.scoring import Job, Scorer
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
        context: RunContext,
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
        longest = self.scorer.longest()
        found = [
            (chunk, self.scorer.compare(chunk, register=not dry_run))
            for chunk in window.chunks(longest)
        ]
        verdicts = sum(differences.verdicts for _, differences in found)
        deleted = sum(len(differences.deleted) for _, differences in found)
        tolerable = allow_retract or deleted <= self.settings.retract_limit * verdicts
        job = Job(origin, context, retractable=deleted if tolerable else 0, dry_run=dry_run)
        scores = ScoreReport()
        for span in self._spans(found, longest):
            scores += self.scorer.score_window(span, job)
        return ReconcileReport(
            compared=verdicts,
            missing=sum(len(differences.missing) for _, differences in found),
            changed=sum(len(differences.changed) for _, differences in found),
            deleted=deleted,
            scores=scores,
        )

    def _spans(
        self, found: list[tuple[Window, Differences]], longest: timedelta
    ) -> Iterator[Window]:
        for chunk, differences in found:
            for span in spans(differences.moments, self.settings.interval, longest):
                yield Window(span.start, min(span.end, chunk.end))
