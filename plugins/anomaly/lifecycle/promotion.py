"""Which version judges which readings: promote, roll back, judge the past again, look back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from anomaly.database.connection import TRAINER, Database, Transaction
from anomaly.database.model_in_force import (
    Champion,
    champion,
    champion_since,
    decisions,
    entries_of,
    entries_on,
    finish_decision,
    judges_all,
    put_in_force,
    unfinished_rollback,
)
from anomaly.database.model_versions import all_versions, version_row
from anomaly.database.results import Origin
from anomaly.database.scoring_runs import RequestedBy, lock_publishing, scored_to
from anomaly.errors import ArtefactError, PromotionError
from anomaly.models.artefacts import Artefact, Registry
from anomaly.scoring.publishing import Job, ScoreReport
from anomaly.scoring.scorer import Scorer
from anomaly.settings import GateSettings, Promotion, Settings
from anomaly.windows import Window, ceil_to_interval, floor_to_interval

if TYPE_CHECKING:  # the gate brings scikit-learn, which nothing here needs
    from anomaly.lifecycle.gate import Judgement


class NextStep(StrEnum):
    """What to do with a version that was trained and judged."""

    PROMOTE = "promote"
    ASK = "ask"
    KEEP = "keep_champion"


@dataclass(frozen=True)
class Promoted:
    """A decision about the version map, and what was scored again.

    Attributes
    ----------
    replaced : int or None
        The version that judged new readings before; None where none was in force.
    effective_from, effective_to : datetime or None
        The readings it speaks of; None: without bound.
    scores : ScoreReport or None
        Counts of what was scored again; None where nothing was asked to be.
    decided_before : str
        Who decided it and when, where this finishes what was cut short; else empty.
    """

    version: int
    replaced: int | None
    effective_from: datetime | None
    effective_to: datetime | None
    scores: ScoreReport | None = None
    decided_before: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return vars(self) | {"scores": self.scores and self.scores.counts()}


def next_step(
    judgement: "Judgement | None", gate: GateSettings, refused_in_a_row: int = 0
) -> NextStep:
    """What the settings say to do with a judged version; a first one is always put in force.

    Parameters
    ----------
    refused_in_a_row : int
        Newest versions that the gate refused, this one included.
    """
    if judgement is None or judgement.champion_version is None:
        return NextStep.PROMOTE
    if gate.promotion is Promotion.MANUAL:
        return NextStep.KEEP
    if not judgement.passed:
        return NextStep.ASK if needs_a_person(judgement, gate, refused_in_a_row) else NextStep.KEEP
    return NextStep.ASK if gate.promotion is Promotion.APPROVE else NextStep.PROMOTE


def needs_a_person(
    judgement: "Judgement | None", gate: GateSettings, refused_in_a_row: int = 0
) -> str:
    """Why a person must decide on a refused version; empty where the next training may settle it.

    Parameters
    ----------
    refused_in_a_row : int
        As for `next_step`.
    """
    if judgement is None or judgement.passed:
        return ""
    if refused_in_a_row >= gate.gate_refusals:
        return f"{refused_in_a_row} versions in a row were refused (ANOMALY_GATE_REFUSALS)"
    if judgement.champion_age > gate.champion_age:
        weeks = judgement.champion_age / timedelta(weeks=1)
        return (
            f"version {judgement.champion_version} learnt from readings that are {weeks:.1f} weeks"
            " old by now (ANOMALY_GATE_CHAMPION_WEEKS)"
        )
    return ""


class Promoter:
    """Keeps the version map of one deployment."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self.database = database
        self.settings = settings
        self.registry = Registry(settings.models.models_url)

    # Decide -------------------------------------------------------------

    def promote(
        self, version: int, *, by: str, reason: str, judged_against: int | None = None
    ) -> Promoted:
        """Put a version in force from the next interval that is not yet scored.

        Safe to repeat: a version that is in force stays so.

        Parameters
        ----------
        judged_against : int, optional
            The version it was compared with; when another is in force by now, the
            comparison says nothing any more.

        Raises
        ------
        PromotionError
            When there is no such version, it is retired, or was judged against another.
        ArtefactError
            When its files are not those that were registered.
        """
        self.require_usable(version)
        with self.database.transaction(TRAINER) as transaction:
            lock_publishing(transaction)
            self._require_not_retired(transaction, version)
            before = champion(transaction)
            if before and before.version == version:
                since = champion_since(transaction, [version])
                return Promoted(version, version, since, None)
            if before and judged_against is not None and before.version != judged_against:
                raise PromotionError(
                    f"version {version} was judged against version {judged_against}, and version"
                    f" {before.version} is in force by now: train and judge again, or put it in"
                    f" force all the same with `anomaly models promote {version}`"
                )
            start = self._next_unscored(transaction)
            put_in_force(transaction, version, start, None, by=by, reason=reason)
        return Promoted(version, before.version if before else None, start, None)

    def promote_range(
        self,
        version: int,
        start: datetime,
        end: datetime | None,
        *,
        by: str,
        reason: str,
        requested_by: RequestedBy,
    ) -> Promoted:
        """Let a version judge the readings from `start` to `end` (None: for good), scored again.

        The entries it replaces stay on record. Stopped half way, the map says already what
        should be: the same command, or a reconciliation, scores the rest. A version that
        judges the whole range already is only scored with.

        Raises
        ------
        PromotionError, ArtefactError
            As `promote`.
        """
        promoted = self.assign_range(version, start, end, by=by, reason=reason)
        scores = self._score_again(promoted.effective_from, promoted.effective_to, requested_by)
        self.finish_range(version)
        return replace(promoted, scores=scores)

    def assign_range(
        self, version: int, start: datetime, end: datetime | None, *, by: str, reason: str
    ) -> Promoted:
        """Put a version in force for a range, and score nothing: the first half of `promote_range`.

        Safe to repeat. Whoever has scored the range calls `finish_range`.

        Raises
        ------
        PromotionError, ArtefactError
            As `promote`.
        """
        self.require_usable(version)
        first = floor_to_interval(start, self.settings.meter.interval)
        last = floor_to_interval(end, self.settings.meter.interval) if end else None
        if last is not None:
            Window(first, last)  # refuses an empty range, or a time without a zone
        with self.database.transaction(TRAINER) as transaction:
            lock_publishing(transaction)
            self._require_not_retired(transaction, version)
            before = champion(transaction)
            if not judges_all(transaction, version, first, last):
                put_in_force(
                    transaction,
                    version,
                    first,
                    last,
                    by=by,
                    reason=reason,
                    decision="range" if last else "promotion",
                    unfinished=True,
                )
        return Promoted(version, before.version if before else None, first, last)

    def finish_range(self, version: int) -> None:
        """Record that the range of a version is scored."""
        self._finish(version)

    def roll_back(
        self,
        *,
        by: str,
        reason: str,
        requested_by: RequestedBy,
        to: int | None = None,
        from_now: bool = False,
    ) -> Promoted:
        """Put an earlier version back, and score again what those after it judged.

        The target is decided once and recorded before anything is scored. A roll-back that
        was killed is unfinished: rolling back again finishes it, as it was decided, and goes
        no further. Call `finish_rollback` when the outcome is reported: only then does the next
        one go one version further.

        Parameters
        ----------
        to : int, optional
            The version to go back to; default: the one before the one in force.
        from_now : bool
            Leave verdicts as they are: from the next interval on that is not scored yet.

        Raises
        ------
        PromotionError
            When there is no version before it, or `to` is none of them.
        """
        promoted = self._rolled_back(to)
        if promoted is None:
            promoted = self._decide_rollback(to, by, reason, from_now)
        if promoted.decided_before or not from_now:
            scores = self._score_again(promoted.effective_from, None, requested_by)
            promoted = replace(promoted, scores=scores)
        return promoted

    def finish_rollback(self, promoted: Promoted) -> None:
        """Record that a roll-back is done and reported."""
        self._finish(promoted.version)

    def _rolled_back(self, to: int | None) -> Promoted | None:
        """The roll-back that is unfinished, or the version asked for if it is in force."""
        with self.database.transaction(TRAINER, read_only=True) as transaction:
            row = unfinished_rollback(transaction)
            before = champion(transaction)
            if row and to in (None, row["version"]):
                return Promoted(
                    row["version"],
                    row["replaced"],
                    row["effective_from"],
                    None,
                    decided_before=f"{row['recorded_by']}, {row['recorded_at']:%Y-%m-%d %H:%M}Z",
                )
            if before is None or before.version != to:
                return None
            since = champion_since(transaction, [to])
        return Promoted(to, to, since, None)

    def _decide_rollback(self, to: int | None, by: str, reason: str, from_now: bool) -> Promoted:
        """Decide which version to go back to, and record it."""
        with self.database.transaction(TRAINER, read_only=True) as transaction:
            before = champion(transaction)
            earlier = earlier_versions(decisions(transaction))
            target = _target(earlier, to)
            assert before is not None  # decisions put versions in force
            undone = [before.version, *earlier[: earlier.index(target)]]
            since = champion_since(transaction, undone)
        self.require_usable(target)
        with self.database.transaction(TRAINER) as transaction:
            lock_publishing(transaction)
            self._require_not_retired(transaction, target)
            _require_still(before.version, champion(transaction))
            start = self._next_unscored(transaction) if from_now else since
            put_in_force(
                transaction,
                target,
                start,
                None,
                by=by,
                reason=reason,
                decision="rollback",
                unfinished=True,
            )
        return Promoted(target, before.version, start, None)

    # Look back ----------------------------------------------------------

    def version_on(self, moment: datetime) -> dict[str, Any]:
        """Which version judges a moment's readings now, and which one did at that moment.

        Returns
        -------
        dict
            ``moment``, ``version`` (by the map as it stands) and ``live_then`` (by the map as
            it stood then; None where nothing was in force yet), and the ``entries`` about it.
        """
        with self.database.transaction(TRAINER, read_only=True) as transaction:
            entries = [dict(row) for row in entries_on(transaction, moment)]
        now = [entry["version"] for entry in entries if entry["superseded_at"] is None]
        then = [
            entry["version"]
            for entry in entries
            if entry["recorded_at"] <= moment
            and (entry["superseded_at"] is None or entry["superseded_at"] > moment)
        ]
        return {
            "moment": moment,
            "version": now[0] if now else None,
            "live_then": then[0] if then else None,
            "entries": entries,
        }

    def show(self, version: int) -> dict[str, Any]:
        """All that is on record of a version, and every entry of the version map about it."""
        with self.database.transaction(TRAINER, read_only=True) as transaction:
            row = require_version(transaction, version)
            entries = [dict(entry) for entry in entries_of(transaction, version)]
        return row | {"in_force": entries}

    def verify(self, versions: Sequence[int] = ()) -> dict[int, str]:
        """What is wrong with each version's files, in words; empty where nothing is.

        Parameters
        ----------
        versions : sequence of int, optional
            Default: all that are not retired.
        """
        with self.database.transaction(TRAINER, read_only=True) as transaction:
            known = [
                row["version"] for row in all_versions(transaction) if row["status"] != "retired"
            ]
            rows = [require_version(transaction, version) for version in versions or sorted(known)]
        return {row["version"]: self._problem(row) for row in rows}

    # Steps --------------------------------------------------------------

    def _finish(self, version: int) -> None:
        with self.database.transaction(TRAINER) as transaction:
            finish_decision(transaction, version)

    def _score_again(
        self, start: datetime | None, end: datetime | None, requested_by: RequestedBy
    ) -> ScoreReport:
        """Score what was scored before, as the map has it now."""
        with self.database.transaction(TRAINER, read_only=True) as transaction:
            scored = scored_to(transaction)
        scorer = Scorer(self.database, self.settings)
        first = start or self._first_reading(scorer)
        if scored is None or first is None:
            return ScoreReport()
        last = floor_to_interval(min(end or scored, scored), self.settings.meter.interval)
        if last <= first:
            return ScoreReport()
        return scorer.score_range(Window(first, last), Job(Origin.BACKFILL, requested_by))

    def _first_reading(self, scorer: Scorer) -> datetime | None:
        source = scorer.reader.source
        with self.database.transaction(TRAINER, read_only=True) as transaction:
            extent = source.extent(transaction, source.describe(transaction))
        return extent and floor_to_interval(extent[0], self.settings.meter.interval)

    def _next_unscored(self, transaction: Transaction) -> datetime | None:
        end = scored_to(transaction)
        return ceil_to_interval(end, self.settings.meter.interval) if end else None

    def require_usable(self, version: int) -> None:
        """Refuse a version that is not there, is retired, or whose files have changed.

        Raises
        ------
        PromotionError, ArtefactError
            As `promote`.
        """
        with self.database.transaction(TRAINER, read_only=True) as transaction:
            row = self._require_not_retired(transaction, version)
        self.registry.verify(artefact_of(row))

    def _require_not_retired(self, transaction: Transaction, version: int) -> dict[str, Any]:
        row = require_version(transaction, version)
        if row["status"] == "retired":
            raise PromotionError(
                f"version {version} is retired, its files are removed: promote another, or train"
            )
        return row

    def _problem(self, row: Mapping[str, Any]) -> str:
        if row["status"] == "retired":
            return f"version {row['version']} is retired, its files are removed"
        try:
            self.registry.verify(artefact_of(row))
        except ArtefactError as error:
            return str(error)
        return ""


def earlier_versions(decided: Sequence[tuple[Any, ...]]) -> list[int]:
    """Versions to go back to, the nearest first, after promotions and roll-backs in their order.

    Parameters
    ----------
    decided : sequence of tuple
        ``decision`` (``promotion`` or ``rollback``), ``version`` and its ``status``.

    Examples
    --------
    >>> steps = [("promotion", n, "registered") for n in (1, 2, 3)]
    >>> earlier_versions(steps)
    [2, 1]
    >>> earlier_versions([*steps, ("rollback", 2, "registered")])
    [1]
    >>> earlier_versions(steps[:1])
    []
    """
    stack: list[int] = []
    for decision, version, _ in decided:
        if decision == "rollback" and version in stack:
            del stack[stack.index(version) + 1 :]
        elif stack[-1:] != [version]:
            stack.append(version)
    retired = {version for _, version, status in decided if status == "retired"}
    return [v for v in reversed(stack[:-1]) if v not in retired and v != stack[-1]]


def _target(earlier: Sequence[int], to: int | None) -> int:
    if not earlier:
        raise PromotionError(
            "there is no earlier version to go back to: `anomaly models list` shows what there"
            " is, `anomaly models promote N` puts one in force"
        )
    if to is not None and to not in earlier:
        raise PromotionError(
            f"version {to} was not in force before: go back to one of"
            f" {', '.join(map(str, earlier))}, or put it in force with `anomaly models promote"
            f" {to}`"
        )
    return earlier[0] if to is None else to


def _require_still(version: int, found: Champion | None) -> None:
    """Refuse to roll back a version that somebody has replaced meanwhile."""
    if found is None or found.version != version:
        raise PromotionError(
            f"version {found.version if found else None} was put in force instead of version"
            f" {version} meanwhile: look at `anomaly models list`, then roll back again"
        )


def require_version(transaction: Transaction, version: int) -> dict[str, Any]:
    """All that is recorded of a version.

    Raises
    ------
    PromotionError
        When there is no such version.
    """
    row = version_row(transaction, version)
    if row is None:
        raise PromotionError(
            f"there is no model version {version}: `anomaly models list` shows what there is"
        )
    return row


def artefact_of(row: Mapping[str, Any]) -> Artefact:
    """Where the files of a recorded version lie, and their hashes."""
    return Artefact(row["artefact"], row["sha256"])
