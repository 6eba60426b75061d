"""Which version judges which readings: promote, roll back, judge the past anew, look back."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from anomaly.errors import ArtefactError, PromotionError
from anomaly.postgres.database import TRAINER, Database, Transaction
from anomaly.postgres.results import RunContext, ScoreReport
from anomaly.postgres.versions import (
    Champion,
    champion,
    finish_decision,
    judges_all,
    put_in_force,
)
from anomaly.registry import SCORING, Artefact, Registry, library_versions, unpack_arrays
from anomaly.schema import Origin
from anomaly.scoring import Job, Scorer
from anomaly.settings import Promotion, Settings
from anomaly.training import Trainer, TrainingReport
from anomaly.windows import Window, ceil_to_interval, floor_to_interval


class Step(StrEnum):
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


@dataclass(frozen=True)
class Reproduced:
    """A version trained again, compared with the one on record.

    Attributes
    ----------
    differing : list of str
        Arrays that are not the same, bit for bit; empty: the version was reproduced.
    libraries : mapping
        Libraries of another version than then, as ``then, now``.
    """

    version: int
    readings: int
    readings_then: int
    differing: Sequence[str]
    libraries: Mapping[str, tuple[str, str]]

    @property
    def same(self) -> bool:
        """Whether every array is the same."""
        return not self.differing


def next_step(report: TrainingReport, settings: Settings) -> Step:
    """What the settings say to do with a judged version; a first one is always put in force."""
    judgement = report.judgement
    if judgement is None or judgement.champion_version is None:
        return Step.PROMOTE
    if not judgement.passed:
        return Step.KEEP
    return {
        Promotion.AUTO: Step.PROMOTE,
        Promotion.APPROVE: Step.ASK,
        Promotion.MANUAL: Step.KEEP,
    }[settings.promotion]


class Promoter:
    """Keeps the version map of one deployment."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self.database = database
        self.settings = settings
        self.registry = Registry(settings.models_url)

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
        self._require_usable(version)
        with self.database.transaction(TRAINER) as transaction:
            transaction.rows("lock_publishing")
            self._require_not_retired(transaction, version)
            before = champion(transaction)
            if before and before.version == version:
                since = transaction.value("champion_since", versions=[version])
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
        context: RunContext,
    ) -> Promoted:
        """Let a version judge the readings from `start` to `end` (None: for good), scored anew.

        The entries it replaces stay on record. Stopped half way, the map says already what
        should be: the same command, or a reconciliation, scores the rest. A version that
        judges the whole range already is only scored with.

        Raises
        ------
        PromotionError, ArtefactError
            As `promote`.
        """
        self._require_usable(version)
        first = floor_to_interval(start, self.settings.interval)
        last = floor_to_interval(end, self.settings.interval) if end else None
        if last is not None:
            Window(first, last)  # refuses an empty range, or a time without a zone
        with self.database.transaction(TRAINER) as transaction:
            transaction.rows("lock_publishing")
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
        scores = self._score_again(first, last, context)
        self._finish(version)
        return Promoted(version, before.version if before else None, first, last, scores)

    def rollback(
        self,
        *,
        by: str,
        reason: str,
        context: RunContext,
        to: int | None = None,
        from_now: bool = False,
        tell: Callable[[Promoted], None] = lambda promoted: None,
    ) -> Promoted:
        """Put an earlier version back, and score anew what those after it judged.

        The target is decided once and recorded before anything is scored. A roll-back that
        was killed is unfinished: rolling back again finishes it, as it was decided, and goes
        no further. Only when it is done and told does the next one go one version further.

        Parameters
        ----------
        to : int, optional
            The version to go back to; default: the one before the one in force.
        from_now : bool
            Leave verdicts as they are: from the next interval on that is not scored yet.
        tell : callable, optional
            Is given the outcome before the roll-back counts as finished.

        Raises
        ------
        PromotionError
            When there is no version before it, or `to` is none of them.
        """
        promoted = self._rolled_back(to)
        if promoted is None:
            promoted = self._roll_back(to, by, reason, from_now)
        if promoted.decided_before or not from_now:
            scores = self._score_again(promoted.effective_from, None, context)
            promoted = replace(promoted, scores=scores)
        tell(promoted)
        self._finish(promoted.version)
        return promoted

    def _rolled_back(self, to: int | None) -> Promoted | None:
        """The roll-back that is unfinished, or the version asked for if it is in force."""
        with self.database.transaction(TRAINER, read_only=True) as transaction:
            found = transaction.rows("unfinished_rollback")
            before = champion(transaction)
            if found and to in (None, found[0]["version"]):
                row = found[0]
                return Promoted(
                    row["version"],
                    row["replaced"],
                    row["effective_from"],
                    None,
                    decided_before=f"{row['recorded_by']}, {row['recorded_at']:%Y-%m-%d %H:%M}Z",
                )
            if before is None or before.version != to:
                return None
            since = transaction.value("champion_since", versions=[to])
        return Promoted(to, to, since, None)

    def _roll_back(self, to: int | None, by: str, reason: str, from_now: bool) -> Promoted:
        """Decide which version to go back to, and record it."""
        with self.database.transaction(TRAINER, read_only=True) as transaction:
            before = champion(transaction)
            decided = [tuple(row.values()) for row in transaction.rows("decisions")]
            earlier = earlier_versions(decided)
            target = _target(earlier, to)
            assert before is not None  # decisions put versions in force
            undone = [before.version, *earlier[: earlier.index(target)]]
            since = transaction.value("champion_since", versions=undone)
        self._require_usable(target)
        with self.database.transaction(TRAINER) as transaction:
            transaction.rows("lock_publishing")
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
            entries = [dict(row) for row in transaction.rows("entries_on", moment=moment)]
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
            row = self._row(transaction, version)
            entries = [dict(entry) for entry in transaction.rows("entries", version=version)]
        return row | {"in_force": entries}

    def verify(self, versions: Sequence[int] = ()) -> dict[int, str]:
        """What is wrong with each version's files, in words; empty where nothing is.

        Parameters
        ----------
        versions : sequence of int, optional
            Default: all that are not retired.
        """
        with self.database.transaction(TRAINER, read_only=True) as transaction:
            known = [r["version"] for r in transaction.rows("model_versions")
                     if r["status"] != "retired"]  # fmt: skip
            rows = [self._row(transaction, version) for version in versions or sorted(known)]
        return {row["version"]: self._problem(row) for row in rows}

    def reproduce(self, version: int) -> Reproduced:
        """Train a version again from what is on record, and compare every array.

        Raises
        ------
        TrainingError
            When its readings are gone.
        """
        with self.database.transaction(TRAINER, read_only=True) as transaction:
            row = self._row(transaction, version)
        registered = unpack_arrays(self.registry.read(_artefact(row), SCORING))
        window = Window(row["trained_from"], row["trained_to"])
        settings = _as_then(self.settings, row["parameters"])
        through = row["parameters"].get("labels_through")
        arrays, readings = Trainer(self.database, settings).arrays(window, through)
        differing = [
            name
            for name in sorted(registered.keys() | arrays.keys())
            if name not in arrays
            or name not in registered
            or registered[name].tobytes() != arrays[name].tobytes()
        ]
        now = library_versions()
        libraries = {
            name: (then, now.get(name, "not installed"))
            for name, then in row["library_versions"].items()
            if now.get(name) != then
        }
        return Reproduced(version, readings, row["readings"], differing, libraries)

    # Steps --------------------------------------------------------------

    def _finish(self, version: int) -> None:
        with self.database.transaction(TRAINER) as transaction:
            finish_decision(transaction, version)

    def _score_again(
        self, start: datetime | None, end: datetime | None, context: RunContext
    ) -> ScoreReport:
        """Score what was scored before, as the map has it now."""
        with self.database.transaction(TRAINER, read_only=True) as transaction:
            scored_to = transaction.value("first_unscored")
        scorer = Scorer(self.database, self.settings)
        first = start or self._first_reading(scorer)
        if scored_to is None or first is None:
            return ScoreReport()
        last = floor_to_interval(min(end or scored_to, scored_to), self.settings.interval)
        if last <= first:
            return ScoreReport()
        return scorer.score_range(Window(first, last), Job(Origin.BACKFILL, context))

    def _first_reading(self, scorer: Scorer) -> datetime | None:
        source = scorer.reader.source
        with self.database.transaction(TRAINER, read_only=True) as transaction:
            extent = source.extent(transaction, source.describe(transaction))
        return extent and floor_to_interval(extent[0], self.settings.interval)

    def _next_unscored(self, transaction: Transaction) -> datetime | None:
        scored_to = transaction.value("first_unscored")
        return ceil_to_interval(scored_to, self.settings.interval) if scored_to else None

    def _require_usable(self, version: int) -> None:
        with self.database.transaction(TRAINER, read_only=True) as transaction:
            row = self._require_not_retired(transaction, version)
        self.registry.verify(_artefact(row))

    def _require_not_retired(self, transaction: Transaction, version: int) -> dict[str, Any]:
        row = self._row(transaction, version)
        if row["status"] == "retired":
            raise PromotionError(
                f"version {version} is retired, its files are removed: promote another, or train"
            )
        return row

    def _row(self, transaction: Transaction, version: int) -> dict[str, Any]:
        for row in transaction.rows("model_version", version=version):
            return dict(row)
        raise PromotionError(
            f"there is no model version {version}: `anomaly models list` shows what there is"
        )

    def _problem(self, row: Mapping[str, Any]) -> str:
        if row["status"] == "retired":
            return f"version {row['version']} is retired, its files are removed"
        try:
            self.registry.verify(_artefact(row))
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


def _artefact(row: Mapping[str, Any]) -> Artefact:
    return Artefact(row["artefact"], row["sha256"])


def _as_then(settings: Settings, parameters: Mapping[str, Any]) -> Settings:
    """The settings a version was trained with, where there still are such."""
    known = {name: value for name, value in parameters.items() if name in Settings.model_fields}
    return Settings.model_validate(settings.model_dump() | known)
