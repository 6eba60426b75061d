"""Publish a window of verdicts: whole or not at all, once, and never over a newer attempt."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from psycopg2.sql import SQL, Literal

from anomaly import __version__
from anomaly.contradictions import REACH
from anomaly.errors import ArtefactError, NoModelError, StaleAttemptError
from anomaly.postgres import binary
from anomaly.postgres.current import Current, Differences, compare_current, read_current
from anomaly.postgres.database import SCORER, Database, Transaction, sql_file
from anomaly.postgres.incidents import Change, readings_to, refresh_incidents
from anomaly.postgres.machines import register_machines
from anomaly.postgres.source import MeterSource, SourceShape
from anomaly.postgres.versions import InForce, in_force
from anomaly.schema import Origin
from anomaly.settings import Settings
from anomaly.windows import Window

WRITTEN = (
    ("machine_id", "int4"), ("utc_timestamp", "timestamptz"), ("reading", "float8"),
    ("power_kw", "float8"), ("power_diff", "float8"), ("anomaly_score", "float8"),
    ("threshold", "float8"), ("anomaly", "int2"), ("reason", "text"), ("quality", "text"),
    ("origin", "text"), ("model_version", "int4"), ("expected_kw", "float8"), ("run_id", "int8"),
    ("scored_at", "timestamptz"),
)  # fmt: skip
"""Columns that are written, in the order of COPY, and their types."""

_TICK = timedelta(microseconds=1)

Rescore = Callable[[Transaction, Window, Mapping[int, datetime]], pd.DataFrame]


@dataclass(frozen=True)
class RunContext:
    """Who asks for a window: an Airflow run, or a command."""

    command: str
    dag_id: str | None = None
    dag_run_id: str | None = None


@dataclass(frozen=True)
class Attempt:
    """A window as one attempt read and judged it.

    Attributes
    ----------
    run_id : int
        Fencing token, drawn before anything was read.
    verdicts : DataFrame
        The columns of `WRITTEN` but the last two, sorted by machine and time.
    machines : list of int
        Machines whose verdicts in the window this attempt answers for.
    versions : tuple of InForce
        The part of the version map that judged.
    current : dict of arrays
        Columns of the verdicts that are there, read after `runs_seen`; publishing uses
        them up.
    runs_seen : int
        Ledger rows that overlapped the window when it was read.
    readings, missing, duplicates : int
        What was found in the window.
    new_machines : mapping
        Machines that a dry run has not registered, with the id that each should have.
    breaks : list of int
        Machines with a counter reading in the window that breaks with the one before it.
    ingested_through : datetime or None
        Newest ``ingested_at`` among what was read.
    """

    run_id: int
    window: Window
    origin: Origin
    verdicts: pd.DataFrame
    machines: list[int]
    current: Current
    versions: tuple[InForce, ...]
    runs_seen: int
    readings: int
    missing: int
    duplicates: int
    new_machines: Mapping[str, int | None]
    breaks: list[int]
    ingested_through: datetime | None

    def quiet_since(self, moment: datetime) -> list[int]:
        """Machines without a verdict here at or after `moment`."""
        heard = self.verdicts.loc[self.verdicts["utc_timestamp"] >= moment, "machine_id"]
        quiet: list[int] = np.setdiff1d(self.machines, heard.unique()).tolist()
        return quiet


@dataclass(frozen=True)
class ScoreReport:
    """Counts of one or more published windows; they add up."""

    read: int = 0
    missing: int = 0
    duplicates: int = 0
    scored: int = 0
    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    retracted: int = 0
    retraction_withheld: int = 0
    anomalies: int = 0
    new_machines: int = 0
    windows: int = 0
    published: tuple[Window, ...] = ()

    def __add__(self, other: "ScoreReport") -> "ScoreReport":
        mine, others = self.counts(), other.counts()
        added = {name: mine[name] + others[name] for name in mine}
        return ScoreReport(**added, published=self.published + other.published)

    def counts(self) -> dict[str, int]:
        """The counts by name, without the windows they were counted in."""
        return {name: count for name, count in vars(self).items() if name != "published"}

    def span(self) -> Window | None:
        """From the first moment published to the last; None where nothing was."""
        if not self.published:
            return None
        return Window(
            min(window.start for window in self.published),
            max(window.end for window in self.published),
        )

    @property
    def changed(self) -> int:
        """Verdicts that are no longer what they were."""
        return self.inserted + self.updated + self.retracted


def read_results(transaction: Transaction, window: Window) -> pd.DataFrame:
    """What reconciliation compares of the verdicts in a window.

    Returns
    -------
    DataFrame
        ``machine_id``, ``utc_timestamp``, ``reading``, ``power_diff``,
        ``model_version`` and ``quality`` (`anomaly.schema.Quality`).
    """
    statement = SQL(sql_file("queries/read_results.sql")).format(
        start=Literal(window.start), end=Literal(window.end)
    )
    records = binary.decode(
        transaction.copy_out(statement),
        [
            ("machine_id", ">i4"), ("utc_timestamp", ">i8"), ("reading", ">f8"),
            ("power_diff", ">f8"), ("model_version", ">i4"), ("quality", ">i4"),
        ],
    )  # fmt: skip
    names = ("machine_id", "reading", "power_diff", "model_version", "quality")
    frame = pd.DataFrame({name: binary.native(records[name]) for name in names})
    stamps = pd.Series(binary.moments(records["utc_timestamp"])).dt.tz_localize("UTC")
    return frame.assign(utc_timestamp=stamps)


def draw_token(database: Database) -> int:
    """Draw the fencing token of an attempt, before it reads anything."""
    with database.transaction(SCORER) as transaction:
        return int(transaction.value("draw_token"))


def count_runs(transaction: Transaction, window: Window) -> int:
    """How many published windows overlap `window`."""
    return int(transaction.value("count_runs", start=window.start, end=window.end))


def first_unscored(transaction: Transaction) -> datetime | None:
    """End of everything scored so far; None when nothing is."""
    found: datetime | None = transaction.value("first_unscored")
    return found


class Publisher:
    """The one path on which verdicts reach the results table.

    Parameters
    ----------
    rescore : callable
        Judges readings before or behind the window again, up to a moment per machine, when
        readings in the window changed.
    """

    def __init__(
        self, database: Database, source: MeterSource, settings: Settings, rescore: Rescore
    ) -> None:
        self.database = database
        self.source = source
        self.settings = settings
        self.rescore = rescore

    def publish(
        self,
        attempt: Attempt,
        shape: SourceShape,
        context: RunContext,
        *,
        retractable: int | None,
        dry_run: bool = False,
    ) -> ScoreReport:
        """Merge an attempt's verdicts in one transaction, with its ledger row.

        Parameters
        ----------
        retractable : int or None
            How many verdicts without a reading may go; None: the settings' share
            of the window.
        dry_run : bool
            Do all of it, count, and roll back.

        Raises
        ------
        StaleAttemptError
            When a newer attempt has published an overlapping window, or the
            version map has changed, since this one began.
        """
        with self.database.transaction(SCORER) as transaction:
            published_at = transaction.row("lock_publishing")["published_at"]
            if attempt.new_machines:  # of a dry run: they go with everything else
                register_machines(transaction, attempt.new_machines)
            merge = _Merge(transaction, attempt, published_at, self.settings.interval)
            found = merge.compare(attempt.verdicts, attempt.current)
            written_from = self._look_before(transaction, merge, found)
            attempt.current.clear()  # of many machines, the largest thing in memory
            written_to = self._look_behind(transaction, merge, found)
            written = Window(written_from, written_to)
            _refuse_stale(transaction, attempt, written)
            merge.write(written)
            self._retract(transaction, merge, shape, found, retractable)
            report = merge.report()
            newest = readings_to(transaction)
            merge.record(report, written, context)
            if report.changed or readings_to(transaction) != newest:
                self._refresh_incidents(transaction, merge)
            if dry_run:
                transaction.rollback()
        return report

    def _look_before(
        self, transaction: Transaction, merge: "_Merge", found: Differences
    ) -> datetime:
        """Judge again what changed readings say of those up to a day before the window.

        A counter that comes back, or catches up, contradicts readings before it; one that was
        corrected may contradict them no longer. Returns from where on is written.
        """
        attempt = merge.attempt
        start = attempt.window.start
        before = Window(start - REACH, start)
        machines = self._contradicting(transaction, before, attempt, found)
        if not machines:
            return start
        try:
            with transaction.read_only():
                verdicts = self.rescore(transaction, before, dict.fromkeys(machines, start))
        except (NoModelError, ArtefactError):
            return start  # the day before cannot be judged: its verdicts stay
        current = read_current(transaction, before, machines)
        differ = merge.compare(verdicts, current, only_context=True)
        moments = verdicts.loc[differ.changed & ~differ.reading_changed, "utc_timestamp"]
        return start if moments.empty else moments.min().to_pydatetime()

    def _contradicting(
        self, transaction: Transaction, before: Window, attempt: Attempt, found: Differences
    ) -> list[int]:
        """Machines of which readings before the window may have to be judged again."""
        machine = attempt.verdicts["machine_id"].to_numpy()
        corrected = {*machine[found.reading_changed].tolist(), *found.gone["machine_id"].tolist()}
        breaking = set(machine[found.new | found.changed].tolist()) & set(attempt.breaks)
        newest = readings_to(transaction)
        late = machine[found.new] if newest and newest > attempt.window.end else machine[:0]
        late = np.append(late, _filled_in(attempt.verdicts, found, attempt.current))
        rows = transaction.rows(
            "contradicted_before",
            machines=np.unique(late).tolist(),
            start=before.start,
            end=before.end,
        )
        return sorted(map(int, {*corrected, *breaking, *(row["machine_id"] for row in rows)}))

    def _look_behind(
        self, transaction: Transaction, merge: "_Merge", found: Differences
    ) -> datetime:
        """Judge again what changed readings reach behind the window; say how far that is.

        Behind the window only the context has changed: a verdict there whose reading was
        corrected as well is left to whoever finds that, because the correction reaches
        farther than this attempt has looked. A reading that stands or falls with one of the
        day before it is itself looked back at for a day.
        """
        attempt = merge.attempt
        newest = readings_to(transaction)
        if newest is None or newest <= attempt.window.end:
            return attempt.window.end
        changes = _last_changes(attempt.verdicts, found)
        rows = transaction.rows(
            "behind_window",
            end=attempt.window.end,
            machines=changes.index.tolist(),
            changed_at=[moment.to_pydatetime() for moment in changes],
            reach=2 * REACH,
            max_gap=self.settings.max_gap,
        )
        until = {row["machine_id"]: row["until"] for row in rows}
        if not until:
            return attempt.window.end
        written_to: datetime = max(until.values()) + _TICK
        behind = Window(attempt.window.end, written_to)
        with transaction.read_only():
            verdicts = self.rescore(transaction, behind, until)
        current = read_current(transaction, behind, list(until))
        merge.compare(verdicts, current, only_context=True)
        return written_to

    def _retract(
        self,
        transaction: Transaction,
        merge: "_Merge",
        shape: SourceShape,
        found: Differences,
        retractable: int | None,
    ) -> None:
        """Retract verdicts between the source's first and last reading, all or none."""
        if found.gone.empty:
            return
        with transaction.read_only():
            extent = self.source.extent(transaction, shape)
        if extent is None:
            return
        doubtful = found.gone[found.gone["utc_timestamp"].between(*extent)]
        if retractable is None:
            retractable = int(self.settings.retract_limit * found.current)
        merge.retract(doubtful, withheld=len(doubtful) > retractable)

    def _refresh_incidents(self, transaction: Transaction, merge: "_Merge") -> None:
        as_of = readings_to(transaction)
        if as_of is not None:
            attempt, at = merge.attempt, merge.at["published_at"]
            quiet = attempt.quiet_since(as_of - self.settings.dropout)
            change = Change(merge.touched(), attempt.machines, quiet, as_of, attempt.origin, at)
            refresh_incidents(transaction, change, self.settings)


class _Merge:
    """The statements of one publication, and what they counted."""

    def __init__(
        self,
        transaction: Transaction,
        attempt: Attempt,
        published_at: datetime,
        interval: timedelta,
    ) -> None:
        self.transaction = transaction
        self.attempt = attempt
        self.interval = interval
        self.at: dict[str, Any] = {"run_id": attempt.run_id, "published_at": published_at}
        self.new: list[pd.DataFrame] = []
        self.changed: list[pd.DataFrame] = []
        self.gone = pd.DataFrame({"machine_id": [], "utc_timestamp": []})
        self.scored = self.anomalies = self.inserted = self.updated = 0
        self.retracted = self.withheld = 0

    def compare(
        self, verdicts: pd.DataFrame, current: Current, *, only_context: bool = False
    ) -> Differences:
        """Find what of `verdicts` has to be written; with `only_context`, no new readings."""
        found = compare_current(verdicts, current)
        if only_context:
            self.changed.append(verdicts[found.changed & ~found.reading_changed])
        else:
            self.new.append(verdicts[found.new])
            self.changed.append(verdicts[found.changed])
        self.scored += len(verdicts)
        self.anomalies += int(verdicts["anomaly"].sum())
        return found

    def write(self, written: Window) -> None:
        for verdicts in filter(len, self.new):
            stamps = verdicts["utc_timestamp"]
            self.transaction.rows(
                "ensure_partitions",
                first=stamps.min().to_pydatetime(),
                last=stamps.max().to_pydatetime(),
            )
            self._copy("copy_results", verdicts)
            self.inserted += len(verdicts)
        for verdicts in filter(len, self.changed):
            self._stage(verdicts)
        if self.updated:
            span = {"start": written.start, "end": written.end}
            self.transaction.run("index_staged")
            self.transaction.run("supersede_changed", **span)
            self.transaction.run("update_changed", **span)

    def _stage(self, verdicts: pd.DataFrame) -> None:
        if not self.updated:
            self.transaction.run("stage_results")
        self._copy("copy_staged", verdicts)
        self.updated += len(verdicts)

    def _copy(self, query: str, verdicts: pd.DataFrame) -> None:
        written = verdicts.assign(
            run_id=self.attempt.run_id, scored_at=pd.Timestamp(self.at["published_at"])
        )
        self.transaction.copy_in(query, binary.CopyInput(written, WRITTEN))

    def retract(self, gone: pd.DataFrame, *, withheld: bool) -> None:
        if withheld:
            self.withheld = len(gone)
        elif len(gone):
            self.gone = gone
            self.transaction.run("stage_retractions")
            self.transaction.copy_in("copy_retractions", binary.CopyInput(gone, WRITTEN[:2]))
            self.transaction.run("analyze_retractions")
            window = self.attempt.window
            self.retracted = self.transaction.run(
                "retract", start=window.start, end=window.end, **self.at
            )

    def touched(self) -> Window:
        """From the first verdict that is no longer what it was to the last, and on."""
        attempt = self.attempt
        stamps = [part["utc_timestamp"] for part in (*self.new, *self.changed, self.gone)]
        earliest = [part.min().to_pydatetime() for part in stamps if len(part)]
        latest = [part.max().to_pydatetime() + self.interval for part in stamps if len(part)]
        end = max(attempt.window.end, *latest)
        return Window(min([end - self.interval, *earliest]), end)

    def report(self) -> ScoreReport:
        attempt = self.attempt
        return ScoreReport(
            read=attempt.readings,
            missing=attempt.missing,
            duplicates=attempt.duplicates,
            scored=self.scored,
            inserted=self.inserted,
            updated=self.updated,
            unchanged=self.scored - self.inserted - self.updated,
            retracted=self.retracted,
            retraction_withheld=self.withheld,
            anomalies=self.anomalies,
            new_machines=len(attempt.new_machines),
            windows=1,
            published=(attempt.window,),
        )

    def _readings_to(self) -> datetime | None:
        newest = self.attempt.verdicts["utc_timestamp"].max()
        return None if pd.isna(newest) else newest.to_pydatetime() + self.interval

    def record(self, report: ScoreReport, written: Window, context: RunContext) -> None:
        counts = report.counts()
        counts["readings"] = counts.pop("read")
        del counts["windows"], counts["new_machines"]
        self.transaction.run(
            "record_run",
            **counts,
            start=self.attempt.window.start,
            end=self.attempt.window.end,
            **self.at,
            **asdict(context),
            written_from=written.start,
            written_to=written.end,
            origin=self.attempt.origin.value,
            ingested_through=self.attempt.ingested_through,
            readings_to=self._readings_to(),
            package_version=__version__,
        )


def _last_changes(verdicts: pd.DataFrame, found: Differences) -> pd.Series:
    """When the last reading of each machine changed, of those whose readings did."""
    columns = ["machine_id", "utc_timestamp"]
    touched = verdicts.loc[found.new | found.reading_changed, columns]
    both = pd.concat([touched, found.gone]) if len(found.gone) else touched
    latest: pd.Series = both.groupby("machine_id")["utc_timestamp"].max()
    return latest


def _filled_in(
    verdicts: pd.DataFrame, found: Differences, current: Current
) -> npt.NDArray[np.int64]:
    """Machines with a new verdict before one that was there: its reading came late."""
    new = verdicts.loc[found.new].groupby("machine_id")["utc_timestamp"].min()
    stamps = pd.Series(current["utc_timestamp"]).dt.tz_localize("UTC")
    newest = stamps.groupby(current["machine_id"]).max()
    late = new.index[new < newest.reindex(new.index)]
    machines: npt.NDArray[np.int64] = late.to_numpy(np.int64)
    return machines


def _refuse_stale(transaction: Transaction, attempt: Attempt, written: Window) -> None:
    newer = transaction.rows(
        "newer_overlap", run_id=attempt.run_id, start=written.start, end=written.end
    )
    if newer:
        raise StaleAttemptError(
            f"run {newer[0]['run_id']} has published an overlapping window since run"
            f" {attempt.run_id} began to read {attempt.window}: it is read again"
        )
    if count_runs(transaction, attempt.window) != attempt.runs_seen:
        raise StaleAttemptError(
            f"an older run has published an overlapping window since run {attempt.run_id} read"
            f" {attempt.window}: it is read again"
        )
    if in_force(transaction, attempt.window) != attempt.versions:
        raise StaleAttemptError(
            f"another model version was put in force for {attempt.window} since run"
            f" {attempt.run_id} began: it is scored again"
        )
