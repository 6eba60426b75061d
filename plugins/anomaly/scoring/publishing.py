"""Publish a window of verdicts: whole or not at all, once, and never over a newer attempt."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

import numpy as np
import pandas as pd

from anomaly.alerts.events import write_incident_events
from anomaly.arrays import Bools
from anomaly.database.connection import SCORER, Database, Transaction
from anomaly.database.machines import register_machines
from anomaly.database.meter_table import MeterSource, SourceShape
from anomaly.database.results import (
    CurrentVerdicts,
    Origin,
    insert_new,
    read_current,
    replace_changed,
    retract,
)
from anomaly.database.scoring_runs import (
    RequestedBy,
    lock_publishing,
    readings_to,
    record_changes,
    record_run,
)
from anomaly.database.sums import refresh_sums
from anomaly.errors import ArtefactError, NoModelError
from anomaly.incidents.changes import IncidentChanges
from anomaly.incidents.episodes import longest_silence
from anomaly.incidents.refresh import VerdictsChanged, refresh_incidents
from anomaly.readings.contradictions import REACH
from anomaly.scoring.affected_verdicts import last_to_judge_after, machines_to_judge_before
from anomaly.scoring.comparison import VerdictChanges, compare_verdicts
from anomaly.scoring.fencing import Fence
from anomaly.scoring.judging import WindowJudge
from anomaly.scoring.retraction import retractable, within_source
from anomaly.settings import Settings
from anomaly.windows import Window

log = logging.getLogger("anomaly.published")
"""One record per published window; its attribute ``published`` has the facts by name."""

_TICK = timedelta(microseconds=1)


_LOGGED = ("read", "missing", "scored", "inserted", "updated", "retracted", "anomalies")


class Part(Enum):
    """Where verdicts lie: in the window that is published, or around it."""

    BEFORE = "before"
    WINDOW = "window"
    AFTER = "after"


@dataclass(frozen=True)
class Job:
    """What is asked of a window, and by whom.

    Attributes
    ----------
    origin : Origin
        Why verdicts are written.
    requested_by : RequestedBy
        The Airflow run or the command.
    retractable : int or None
        How many verdicts whose reading is gone may be retracted; None: the settings' share of
        the window.
    late_before : datetime or None
        Live windows: verdicts before this moment are `Origin.LATE`.
    dry_run : bool
        Do all of it, count, and roll back. In a long table, readings of machines that are not
        registered yet have no number, so they are left out.
    machines : tuple of int or None
        Only these; None: all.
    backfill_id : int or None
        The backfill that the ledger's row belongs to.
    counted : tuple of Window
        Windows of the same backfill, in order: each verdict in them is counted with its own.
    """

    origin: Origin
    requested_by: RequestedBy
    retractable: int | None = None
    late_before: datetime | None = None
    dry_run: bool = False
    machines: tuple[int, ...] | None = None
    backfill_id: int | None = None
    counted: tuple[Window, ...] = ()


@dataclass(frozen=True)
class Attempt:
    """A window as one attempt read and judged it.

    Attributes
    ----------
    fence : Fence
        The window, and what was seen of the ledger and the version map.
    verdicts : DataFrame
        The columns of a result but ``run_id`` and ``scored_at``, sorted by machine and time.
    machines : list of int
        Machines whose verdicts in the window this attempt answers for.
    current : dict of arrays
        The verdicts that are there. Publishing uses them up.
    readings, missing, duplicates : int
        What was found in the window.
    new_machines : mapping
        Machines that a dry run has not registered, with the id that each should have.
    breaks : list of int
        Machines with a counter reading in the window that breaks with the one before it.
    ingested_through : datetime or None
        Newest ``ingested_at`` among what was read.
    """

    fence: Fence
    verdicts: pd.DataFrame
    machines: list[int]
    current: CurrentVerdicts
    readings: int
    missing: int
    duplicates: int
    new_machines: Mapping[str, int | None]
    breaks: list[int]
    ingested_through: datetime | None

    @property
    def window(self) -> Window:
        """The window that was read."""
        return self.fence.window

    def quiet_since(self, moment: datetime) -> list[int]:
        """Machines without a verdict here at or after `moment`."""
        heard = self.verdicts.loc[self.verdicts["utc_timestamp"] >= moment, "machine_id"]
        quiet: list[int] = np.setdiff1d(self.machines, heard.unique()).tolist()
        return quiet


@dataclass(frozen=True)
class Flips:
    """Verdicts that say the opposite of what they said, per machine; they add up.

    Attributes
    ----------
    of_machine : mapping
        How many turned abnormal and how many turned normal, by machine.
    """

    of_machine: Mapping[int, tuple[int, int]] = field(default_factory=dict)

    def __add__(self, other: "Flips") -> "Flips":
        total = dict(self.of_machine)
        for machine, (abnormal, normal) in other.of_machine.items():
            mine = total.get(machine, (0, 0))
            total[machine] = (mine[0] + abnormal, mine[1] + normal)
        return Flips(total)

    @property
    def to_abnormal(self) -> int:
        """How many turned abnormal."""
        return sum(abnormal for abnormal, _ in self.of_machine.values())

    @property
    def to_normal(self) -> int:
        """How many turned normal."""
        return sum(normal for _, normal in self.of_machine.values())


@dataclass(frozen=True)
class ScoreReport:
    """Counts of one or more published windows, and what became of incidents; they add up.

    ``to_abnormal`` and ``to_normal`` count verdicts that say the opposite of what they said.
    ``again`` is how many of ``updated`` lie around the window and in the backfill's range.
    """

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
    to_abnormal: int = 0
    to_normal: int = 0
    again: int = 0
    published: tuple[Window, ...] = ()
    flips: Flips = field(default_factory=Flips)
    incidents: IncidentChanges = field(default_factory=IncidentChanges)

    def __add__(self, other: "ScoreReport") -> "ScoreReport":
        mine, others = self.counts(), other.counts()
        return ScoreReport(
            **{name: mine[name] + others[name] for name in mine},
            published=self.published + other.published,
            flips=self.flips + other.flips,
            incidents=self.incidents + other.incidents,
        )

    def counts(self) -> dict[str, int]:
        """The counts by name."""
        return {name: count for name, count in vars(self).items() if isinstance(count, int)}

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


class Publisher:
    """The one path on which verdicts reach the results table.

    Parameters
    ----------
    judge : WindowJudge
        Judges readings before or after the window again when readings in it changed.
    """

    def __init__(
        self, database: Database, source: MeterSource, judge: WindowJudge, settings: Settings
    ) -> None:
        self.database = database
        self.source = source
        self.judge = judge
        self.settings = settings

    def publish(self, attempt: Attempt, shape: SourceShape, job: Job) -> ScoreReport:
        """Write an attempt's verdicts in one transaction, with its ledger row and incidents.

        Raises
        ------
        StaleAttemptError
            When the attempt was overtaken since it began to read (see `Fence`).
        """
        with self.database.transaction(SCORER) as transaction:
            published_at = lock_publishing(transaction)
            if attempt.new_machines:  # of a dry run: they go with everything else
                register_machines(transaction, attempt.new_machines)
            work = _Publication(transaction, attempt, shape, job, published_at, self.settings)
            found = work.compare(attempt.verdicts, attempt.current)
            written_from = self._judge_before(work, found)
            attempt.current.clear()  # of many machines, the largest thing in memory
            written_to = self._judge_after(work, found)
            written = Window(written_from, written_to)
            attempt.fence.refuse_if_overtaken(transaction, written)
            work.write(written)
            self._retract(work, found)
            if not job.dry_run:
                refresh_sums(transaction, work.written())
            report = work.report()
            newest = readings_to(transaction)
            work.record(report, written)
            changes = IncidentChanges()
            if report.changed or readings_to(transaction) != newest:
                changes = self._refresh_incidents(work)
                write_incident_events(
                    transaction,
                    changes,
                    job.origin,
                    published_at,
                    self.settings.meter,
                    self.settings.alerts,
                )
            if job.backfill_id is not None and (changes or report.flips.of_machine or report.again):
                record_changes(
                    transaction,
                    attempt.fence.run_id,
                    {
                        "flips": report.flips.of_machine,
                        "incidents": changes.summary(),
                        "again": report.again,
                    },
                )
            if job.dry_run:
                transaction.rollback()
        if not job.dry_run:  # after the commit: what is logged is true
            log.info("window published", extra={"published": work.facts(report)})
        return report + ScoreReport(incidents=changes)

    def _judge_before(self, work: "_Publication", found: VerdictChanges) -> datetime:
        """Judge again what changed readings say of those up to a day before the window.

        A counter that comes back, or catches up, contradicts readings before it. One that was
        corrected may contradict them no longer. Returns from where on is written.
        """
        transaction, attempt, start = work.transaction, work.attempt, work.attempt.window.start
        before = Window(start - REACH, start)
        newest = readings_to(transaction)
        machines = machines_to_judge_before(
            transaction,
            before,
            attempt.verdicts,
            found,
            attempt.current,
            attempt.breaks,
            is_newest=newest is None or newest <= attempt.window.end,
        )
        if not machines:
            return start
        try:
            verdicts = self._judge_again(work, before, dict.fromkeys(machines, start))
        except (NoModelError, ArtefactError):
            return start  # the day before cannot be judged: its verdicts stay
        current = read_current(transaction, before, machines)
        differ = work.compare(verdicts, current, Part.BEFORE)
        moments = verdicts.loc[differ.changed & ~differ.reading_changed, "utc_timestamp"]
        return start if moments.empty else moments.min().to_pydatetime()

    def _judge_after(self, work: "_Publication", found: VerdictChanges) -> datetime:
        """Judge again what changed readings reach after the window; return how far that is.

        After the window only what precedes a reading has changed. A verdict there whose
        reading was corrected as well is left to whoever finds that, because the correction
        reaches farther than this attempt has looked.
        """
        transaction, attempt, end = work.transaction, work.attempt, work.attempt.window.end
        newest = readings_to(transaction)
        if newest is None or newest <= end:
            return end
        until = last_to_judge_after(transaction, end, attempt.verdicts, found, self.settings.meter)
        if not until:
            return end
        written_to: datetime = max(until.values()) + _TICK
        after = Window(end, written_to)
        verdicts = self._judge_again(work, after, until)
        current = read_current(transaction, after, list(until))
        work.compare(verdicts, current, Part.AFTER)
        return written_to

    def _judge_again(
        self, work: "_Publication", window: Window, until: Mapping[int, datetime]
    ) -> pd.DataFrame:
        transaction, published_to = work.transaction, work.attempt.window.end
        verdicts = self.judge.judge_again(transaction, work.shape, window, until, published_to)
        origin = Origin.LATE if work.job.origin is Origin.LIVE else work.job.origin
        return verdicts.assign(origin=origin.value)

    def _retract(self, work: "_Publication", found: VerdictChanges) -> None:
        """Retract verdicts whose reading is gone, all or none (`anomaly.scoring.retraction`)."""
        if found.gone.empty:
            return
        extent = self.source.extent(work.transaction, work.shape)
        gone = within_source(found.gone, extent)
        limit = work.job.retractable
        if limit is None:
            limit = retractable(found.current, self.settings.scoring)
        if len(gone) > limit:
            work.withheld = len(gone)
        elif len(gone):
            work.retract(gone)

    def _refresh_incidents(self, work: "_Publication") -> IncidentChanges:
        as_of = readings_to(work.transaction)
        if as_of is None:
            return IncidentChanges()
        attempt, meter, rules = work.attempt, self.settings.meter, self.settings.incidents
        quiet = attempt.quiet_since(as_of - longest_silence(meter, rules))
        change = VerdictsChanged(
            work.touched(), attempt.machines, quiet, as_of, work.job.origin, work.published_at
        )
        return refresh_incidents(work.transaction, change, meter, rules)


class _Publication:
    """What one publication has to write, has written, and counted."""

    def __init__(
        self,
        transaction: Transaction,
        attempt: Attempt,
        shape: SourceShape,
        job: Job,
        published_at: datetime,
        settings: Settings,
    ) -> None:
        self.transaction = transaction
        self.attempt = attempt
        self.shape = shape
        self.job = job
        self.published_at = published_at
        self.interval = settings.meter.interval
        self.silent_after = settings.scoring.silent_after(self.interval)
        self.new: list[pd.DataFrame] = []
        self.changed: list[pd.DataFrame] = []
        self.gone = pd.DataFrame({"machine_id": [], "utc_timestamp": []})
        self.flips = Flips()
        self.scored = self.anomalies = self.retracted = self.withheld = self.again = 0

    def compare(
        self, verdicts: pd.DataFrame, current: CurrentVerdicts, part: Part = Part.WINDOW
    ) -> VerdictChanges:
        """Find what of `verdicts` has to be written; around the window, no new readings."""
        found = compare_verdicts(verdicts, current)
        if part is not Part.WINDOW:  # what is judged again and comes out the same does not count
            counted = verdicts[found.changed & ~found.reading_changed]
            self.changed.append(counted)
        else:
            counted = verdicts
            self.new.append(verdicts[found.new])
            self.changed.append(verdicts[found.changed])
        self.scored += len(counted)
        self.anomalies += int(counted["anomaly"].sum())
        flipped = found.flipped
        if part is not Part.WINDOW:
            inside = self._counted_elsewhere(verdicts, part)
            self.again += int((found.changed & ~found.reading_changed & inside).sum())
            flipped = flipped & ~found.reading_changed & ~inside
        self.flips += _counted(verdicts[flipped])
        return found

    def _counted_elsewhere(self, verdicts: pd.DataFrame, part: Part) -> Bools:
        """Which verdicts around this window are counted with another window of the same backfill.

        Those before it were counted when they were written. Those after it will be found as they
        should be, so they count here, unless nothing is written.
        """
        windows = self.job.counted
        if not windows or (part is Part.AFTER and not self.job.dry_run):
            return np.zeros(len(verdicts), dtype=bool)
        stamps = verdicts["utc_timestamp"].to_numpy("datetime64[us]")
        starts, ends = (
            pd.DatetimeIndex(moments).tz_localize(None).to_numpy("datetime64[us]")
            for moments in ([w.start for w in windows], [w.end for w in windows])
        )
        place = np.searchsorted(starts, stamps, side="right") - 1
        inside: Bools = (place >= 0) & (stamps < ends[place])
        return inside

    def write(self, written: Window) -> None:
        for verdicts in filter(len, self.new):
            insert_new(self.transaction, self._signed(verdicts))
        changed = [self._signed(part) for part in self.changed if len(part)]
        if changed:
            replace_changed(self.transaction, changed, written)

    def _signed(self, verdicts: pd.DataFrame) -> pd.DataFrame:
        return verdicts.assign(
            run_id=self.attempt.fence.run_id, scored_at=pd.Timestamp(self.published_at)
        )

    def retract(self, gone: pd.DataFrame) -> None:
        self.gone = gone
        fence = self.attempt.fence
        self.retracted = retract(
            self.transaction, gone, fence.window, fence.run_id, self.published_at
        )

    def written(self) -> list[pd.DataFrame]:
        """Verdicts that are no longer what they were."""
        return [*self.new, *self.changed, self.gone]

    def touched(self) -> Window:
        """From the first verdict that is no longer what it was to the last, and on."""
        attempt = self.attempt
        stamps = [part["utc_timestamp"] for part in self.written()]
        earliest = [part.min().to_pydatetime() for part in stamps if len(part)]
        latest = [part.max().to_pydatetime() + self.interval for part in stamps if len(part)]
        end = max(attempt.window.end, *latest)
        return Window(min([end - self.interval, *earliest]), end)

    def report(self) -> ScoreReport:
        attempt = self.attempt
        inserted, updated = (sum(map(len, part)) for part in (self.new, self.changed))
        return ScoreReport(
            read=attempt.readings,
            missing=attempt.missing,
            duplicates=attempt.duplicates,
            scored=self.scored,
            inserted=inserted,
            updated=updated,
            unchanged=self.scored - inserted - updated,
            retracted=self.retracted,
            retraction_withheld=self.withheld,
            anomalies=self.anomalies,
            new_machines=len(attempt.new_machines),
            windows=1,
            to_abnormal=self.flips.to_abnormal,
            to_normal=self.flips.to_normal,
            again=self.again,
            published=(attempt.window,),
            flips=self.flips,
        )

    def facts(self, report: ScoreReport) -> dict[str, Any]:
        """What is logged of a publication, as plain values."""
        attempt, job = self.attempt, self.job
        versions = [part["model_version"] for part in (attempt.verdicts, *self.changed)]
        counts = report.counts()
        return {
            "run_id": attempt.fence.run_id,
            "window_start": attempt.window.start.isoformat(),
            "window_end": attempt.window.end.isoformat(),
            "model_versions": sorted({int(v) for part in versions for v in part.unique()}),
            "origin": job.origin.value,
            "command": job.requested_by.command,
            "dag_run_id": job.requested_by.dag_run_id,
            "backfill_id": job.backfill_id,
            **{name: counts[name] for name in _LOGGED},
        }

    def record(self, report: ScoreReport, written: Window) -> None:
        counts = report.counts()
        counts["readings"] = counts.pop("read")
        for name in ("windows", "new_machines", "to_abnormal", "to_normal", "again"):
            del counts[name]
        counts["late"] = sum(int((part["origin"] == Origin.LATE.value).sum()) for part in self.new)
        newest = self.attempt.verdicts["utc_timestamp"].max()
        record_run(
            self.transaction,
            self.attempt.fence.run_id,
            self.attempt.window,
            written,
            self.job.requested_by,
            self.job.origin,
            counts=counts,
            meter_interval=self.interval,
            stale_after=self.silent_after,
            published_at=self.published_at,
            readings_to=None if pd.isna(newest) else newest.to_pydatetime() + self.interval,
            ingested_through=self.attempt.ingested_through,
            machines=self.job.machines,
            backfill_id=self.job.backfill_id,
        )


def _counted(flipped: pd.DataFrame) -> Flips:
    """Verdicts that say the opposite of what they said, counted."""
    if flipped.empty:
        return Flips()
    abnormal = flipped.groupby("machine_id")["anomaly"].agg(["sum", "size"])
    return Flips(
        {
            int(machine): (int(turned), int(every - turned))
            for machine, turned, every in abnormal.itertuples()
        }
    )
