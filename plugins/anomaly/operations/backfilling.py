"""Backfills: a past range is previewed, scored chunk by chunk, and reported."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from math import ceil
from typing import Any

import pandas as pd

from anomaly.database import backfills as table
from anomaly.database.connection import SCORER, Database
from anomaly.database.machines import find_machine, known_machines
from anomaly.database.model_in_force import InForce, versions_in_force
from anomaly.database.results import Origin
from anomaly.database.scoring_runs import RequestedBy, live_coverage
from anomaly.errors import NoModelError, WindowError
from anomaly.incidents.episodes import join_after
from anomaly.lifecycle.promotion import Promoter, artefact_of, require_version
from anomaly.operations.backfill_report import (
    COUNTS,
    BackfillReport,
    IncidentsChanged,
    as_markdown,
    flips_of,
    incidents_of,
)
from anomaly.scoring.new_machines import new_machines
from anomaly.scoring.publishing import Flips, Job, ScoreReport
from anomaly.scoring.retraction import may_retract
from anomaly.scoring.scorer import Scorer
from anomaly.settings import Layout, Settings
from anomaly.windows import Window, floor_to_interval, spans

PIECE_READINGS = 100_000
"""Readings that are read and published at once; `chunk_readings` may ask for less. Chosen: a
publication holds the lock that a tick waits for, and this many take about a second."""
CHUNK_READINGS = 2_000_000
"""Readings of a chunk, which is a task in Airflow. Chosen: half a minute of work or so."""
GROUP_MACHINES = 5_000
"""Machines of a chunk: fleets are cut by machines as well as by time. Chosen."""
MOST_CHUNKS = 500
"""Chunks of a backfill. Airflow maps at most 1,024 tasks."""
LONGEST_PIECE = timedelta(days=366)
_NONE = timedelta(0)


class Mode(StrEnum):
    """Which readings of the range are scored."""

    MISSING = "missing"
    CHANGED = "changed"
    EVERYTHING = "everything"


@dataclass(frozen=True)
class Request:
    """A backfill as it is asked for, checked.

    Attributes
    ----------
    window : Window
    machines : tuple of int or None
        None: all.
    version : int or None
        The version that is put in force for the range; None: those in force stay.
    mode : Mode
    chunk, piece : timedelta
        How long a chunk is, and what of it is read and published at once. They are kept with the
        backfill: whoever goes on with it cuts as it was cut.
    """

    window: Window
    machines: tuple[int, ...] | None
    version: int | None
    mode: Mode
    chunk: timedelta
    piece: timedelta


@dataclass(frozen=True)
class Chunk:
    """A part of a backfill that is done, and done again, alone.

    Attributes
    ----------
    window : Window
    group : tuple of int or None
        First and last machine; None: all machines that are asked for.
    """

    window: Window
    group: tuple[int, int] | None = None

    def __str__(self) -> str:
        same_day = self.window.start.date() == self.window.end.date()
        span = f"{self.window.start:%Y-%m-%d %H:%M} to {self.window.end:%Y-%m-%d %H:%M}"
        if same_day:
            span = f"{self.window.start:%Y-%m-%d %H:%M} to {self.window.end:%H:%M}"
        return f"{span}, machines {self.group[0]} to {self.group[1]}" if self.group else span

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for XCom."""
        return {
            "name": str(self),
            "start": self.window.start.isoformat(),
            "end": self.window.end.isoformat(),
            "group": self.group and list(self.group),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Chunk":
        """The chunk that `as_dict` turned into plain values."""
        group = values["group"]
        return cls(
            Window.parse(values["start"], values["end"]), (group[0], group[1]) if group else None
        )


class Backfiller:
    """Previews, runs and reports backfills of one deployment."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self.database = database
        self.settings = settings

    # Check ----------------------------------------------------------------

    def check(
        self,
        window: Window,
        machines: Sequence[str] = (),
        version: int | None = None,
        mode: str = Mode.CHANGED,
        chunk_days: int | None = None,
        *,
        due: datetime,
    ) -> Request:
        """Refuse what cannot be done, before anything begins.

        Parameters
        ----------
        machines : sequence of str
            Ids or names; none: all.
        chunk_days : int, optional
            Length of a chunk; default: as long as it should be.
        due : datetime
            Intervals that are complete by then can be scored; what is later is left out. So is
            what the scheduled scoring has not reached: a backfill would keep its alerts from it.

        Raises
        ------
        WindowError
            When the range is in the future, before the first reading or after the last, or the
            mode does not fit.
        MachineError
            When there is no such machine.
        PromotionError, ArtefactError
            When the version cannot be put in force.
        NoModelError
            When no version is in force for a part of the range.
        """
        asked = self._covered(window.due(due, self.settings.meter.interval))
        if mode not in [*Mode]:
            raise WindowError(f"there is no mode {mode!r}: write {', '.join(Mode)}")
        chosen = self._numbers_of(machines)
        if version is not None and chosen:
            raise WindowError(
                f"version {version} would judge the range for every machine: leave the machines"
                " empty, or the version"
            )
        if version is not None and mode == Mode.MISSING:
            raise WindowError(
                f"version {version} changes verdicts that are there, and mode 'missing' leaves"
                " those alone: choose 'changed' or 'everything'"
            )
        asked = self._with_readings(asked, keeps_end=version is not None)
        if version is not None:
            Promoter(self.database, self.settings).require_usable(version)
            asked = self._on_intervals(asked)
        with self.database.transaction(SCORER, read_only=True) as transaction:
            versions_in_force(transaction, asked)
        chunk = timedelta(days=chunk_days) if chunk_days else None
        return self._cut(Request(asked, chosen, version, Mode(mode), _NONE, _NONE), chunk)

    def _numbers_of(self, machines: Sequence[str]) -> tuple[int, ...] | None:
        if not machines:
            return None
        with self.database.transaction(SCORER, read_only=True) as transaction:
            known = known_machines(transaction)
        return tuple(sorted({find_machine(known, str(machine)) for machine in machines}))

    def _covered(self, window: Window) -> Window:
        """The part that the scheduled scoring has reached, where it has ever run."""
        with self.database.transaction(SCORER, read_only=True) as transaction:
            watermark = live_coverage(transaction).watermark
        if watermark is None or window.end <= watermark:
            return window
        if window.start >= watermark:
            raise WindowError(
                f"{window} is for score_readings, which has scored up to"
                f" {watermark:%Y-%m-%d %H:%M} UTC and catches up by itself: turn it on"
            )
        return Window(window.start, watermark)

    def _with_readings(self, window: Window, *, keeps_end: bool) -> Window:
        """The part from the first to the last reading; a version may be for later ones, too."""
        interval = self.settings.meter.interval
        source = Scorer(self.database, self.settings).reader.source
        with self.database.transaction(SCORER, read_only=True) as transaction:
            extent = source.extent(transaction, source.describe(transaction))
        name = self.settings.meter_table.source_name
        if extent is None:
            raise WindowError(f"{name} holds no reading: load some first")
        first, last = extent
        if window.end <= first or window.start > last:
            raise WindowError(
                f"{window} holds no reading: {name} has readings from {first:%Y-%m-%d %H:%M} to"
                f" {last:%Y-%m-%d %H:%M} UTC"
            )
        start = max(window.start, floor_to_interval(first, interval))
        if keeps_end:
            return Window(start, window.end)
        return Window(start, min(window.end, floor_to_interval(last, interval) + interval))

    def _on_intervals(self, window: Window) -> Window:
        """A version judges whole intervals."""
        interval = self.settings.meter.interval
        start, end = (floor_to_interval(moment, interval) for moment in (window.start, window.end))
        return Window(start, end)

    # Plan -----------------------------------------------------------------

    def chunks(self, request: Request) -> list[Chunk]:
        """Cut a backfill into chunks of about the same work; spans without a reading are joined.

        Raises
        ------
        WindowError
            When there would be more than `MOST_CHUNKS`.
        """
        groups = self._groups(request)
        windows = self._occupied(request.window, request.chunk)
        count = len(windows) * len(groups)
        if count > MOST_CHUNKS:
            raise WindowError(
                f"{request.window} would be {count:,} chunks of {request.chunk.days} days, at most"
                f" {MOST_CHUNKS} are scored by one backfill: give a shorter range or longer chunks"
            )
        return [Chunk(window, group) for window in windows for group in groups]

    def pieces(self, request: Request, chunk: Chunk) -> list[Window]:
        """What of a chunk is read and published at once."""
        return self._occupied(chunk.window, request.piece)

    def _groups(self, request: Request) -> list[tuple[int, int] | None]:
        machines = self._machines_of(request)
        if len(machines) <= GROUP_MACHINES:
            return [None]
        return [
            (machines[first], machines[min(first + GROUP_MACHINES, len(machines)) - 1])
            for first in range(0, len(machines), GROUP_MACHINES)
        ]

    def _cut(self, request: Request, chunk: timedelta | None) -> Request:
        """Decide how long chunks (None: automatic) and pieces are."""
        interval = self.settings.meter.interval
        at_once = max(1, min(len(self._machines_of(request)), GROUP_MACHINES))
        most = min(self.settings.scoring.chunk_readings, PIECE_READINGS)
        piece = min(LONGEST_PIECE, max(1, most // at_once) * interval)
        if chunk is None:
            # Fleets over years: longer chunks rather than more than may be.
            span = request.window.end - request.window.start
            least = span * len(self._groups(request)) / (MOST_CHUNKS / 2)
            chunk = ceil(max(CHUNK_READINGS // at_once, least / interval, 1)) * interval
        return replace(request, chunk=chunk, piece=piece)

    def _occupied(self, window: Window, length: timedelta) -> list[Window]:
        """Cut a range into parts with so much of readings; a part may begin before its first."""
        source = Scorer(self.database, self.settings).reader.source
        interval = self.settings.meter.interval
        start, found = window.start, []
        with self.database.transaction(SCORER, read_only=True) as transaction:
            shape = source.describe(transaction)
            while start < window.end:
                first = source.next_reading(transaction, shape, start)
                occupied = max(start, floor_to_interval(first, interval)) if first else window.end
                end = min(occupied + length, window.end)
                following = source.next_reading(transaction, shape, end)
                if following is None or following >= window.end:
                    end = window.end
                found.append(Window(start, end))
                start = end
        return found

    def _machines_of(self, request: Request, group: tuple[int, int] | None = None) -> list[int]:
        if request.machines is not None:
            numbers = [*request.machines]
        else:
            with self.database.transaction(SCORER, read_only=True) as transaction:
                numbers = sorted(known_machines(transaction)["machine_id"].tolist())
        if group is None:
            return numbers
        return [number for number in numbers if group[0] <= number <= group[1]]

    # Preview --------------------------------------------------------------

    def preview(
        self,
        request: Request,
        chunk: Chunk,
        done: Callable[[Window], None] | None = None,
        *,
        allow_retract: bool = False,
    ) -> BackfillReport:
        """What a chunk would change. Nothing is written.

        Each piece is scored and published, and then rolled back. So it is counted exactly, but
        for what one piece changes in another's incidents, and for machines that only the rows of
        a long table name so far: they have no number, and are told by name.
        """
        scorer = Scorer(self.database, self.settings, self._assumed(request))
        total = BackfillReport(strangers=self._strangers(scorer, request, chunk))
        asked = _Asked(allow_retract=allow_retract)
        pieces = self.pieces(request, chunk)
        begun = time.perf_counter()
        works = [self._work(scorer, request, chunk, piece, asked) for piece in pieces]
        total = replace(total, seconds=time.perf_counter() - begun)
        counted = tuple(window for work in works for window in work.windows)
        for piece, work in zip(pieces, works, strict=True):
            begun = time.perf_counter()
            readings, scores = work.score(scorer, counted)
            total += BackfillReport.of(readings, scores, time.perf_counter() - begun)
            if done:
                done(piece)
        return total

    def _strangers(self, scorer: Scorer, request: Request, chunk: Chunk) -> tuple[str, ...]:
        """Machines of a long table that are registered when they are first scored."""
        if request.machines is not None or self.settings.meter_table.source_layout is Layout.WIDE:
            return ()
        source = scorer.reader.source
        with self.database.transaction(SCORER, read_only=True) as transaction:
            shape = source.describe(transaction)
            return tuple(sorted(new_machines(transaction, source, shape, chunk.window)))

    def _assumed(self, request: Request) -> InForce | None:
        if request.version is None:
            return None
        with self.database.transaction(SCORER, read_only=True) as transaction:
            row = require_version(transaction, request.version)
        return InForce(0, request.window, request.version, artefact_of(row))

    # Run ------------------------------------------------------------------

    def begin(self, request: Request, requested_by: RequestedBy, by: str) -> int:
        """Record the backfill, and put its version in force if it has one; return its number.

        A run of Airflow that is begun again goes on with the backfill that it has not finished.

        Parameters
        ----------
        by : str
            Who asks for the version.
        """
        backfill_id = self._begun(request, requested_by)
        if backfill_id is None:
            backfill_id = self._record(request, requested_by)
        self._put_in_force(request, requested_by, by)
        return backfill_id

    def go_on(self, backfill_id: int, requested_by: RequestedBy, by: str) -> None:
        """Put the version of a backfill in force that may have been killed before it did so."""
        self._put_in_force(self.request_of(backfill_id), requested_by, by)

    def _put_in_force(self, request: Request, requested_by: RequestedBy, by: str) -> None:
        if request.version is None:
            return
        Promoter(self.database, self.settings).assign_range(
            request.version,
            request.window.start,
            request.window.end,
            by=by,
            reason=f"{requested_by.command} of {request.window}",
        )

    def _begun(self, request: Request, requested_by: RequestedBy) -> int | None:
        """The backfill that a run has begun, and not finished, with the same form."""
        if requested_by.dag_run_id is None:
            return None
        with self.database.transaction(SCORER, read_only=True) as transaction:
            begun = table.unfinished_backfill(transaction, requested_by.dag_run_id)
        if begun is None:
            return None
        known = self.request_of(begun)
        return begun if replace(request, chunk=known.chunk, piece=known.piece) == known else None

    def _record(self, request: Request, requested_by: RequestedBy) -> int:
        before = self.versions(request.window)
        with self.database.transaction(SCORER) as transaction:
            backfill_id = table.begin_backfill(
                transaction,
                request.window,
                request.machines,
                request.version,
                request.mode,
                request.chunk,
                request.piece,
                requested_by,
            )
            known = {"versions_before": before}
            table.keep_report(transaction, backfill_id, known, is_finished=False)
        return backfill_id

    def request_of(self, backfill_id: int) -> Request:
        """What was asked of a backfill.

        Raises
        ------
        WindowError
            When there is no such backfill.
        """
        with self.database.transaction(SCORER, read_only=True) as transaction:
            rows = table.backfill_rows(transaction, backfill_id)
        if not rows:
            raise WindowError(f"there is no backfill {backfill_id}")
        (row,) = rows
        machines = None if row["machines"] is None else tuple(row["machines"])
        window = Window(row["starts_at"], row["ends_at"])
        return Request(
            window, machines, row["version"], Mode(row["mode"]), row["chunk"], row["piece"]
        )

    def run(
        self,
        backfill_id: int,
        chunk: Chunk,
        requested_by: RequestedBy,
        done: Callable[[Window], None] | None = None,
        *,
        allow_retract: bool = False,
    ) -> ScoreReport:
        """Score a chunk. Pieces that are finished are left out; the others are published alone.

        Returns
        -------
        ScoreReport
            What this call has done: nothing where all was finished before.
        """
        request = self.request_of(backfill_id)
        scorer = Scorer(self.database, self.settings)
        group = chunk.group or table.ALL_MACHINES
        with self.database.transaction(SCORER, read_only=True) as transaction:
            finished = {
                (row["starts_at"], row["ends_at"])
                for row in table.finished_pieces(transaction, backfill_id)
                if (row["first_machine"], row["last_machine"]) == group
            }
        total = ScoreReport()
        for piece in self.pieces(request, chunk):
            if (piece.start, piece.end) not in finished:
                asked = _Asked(backfill_id, requested_by, allow_retract)
                work = self._work(scorer, request, chunk, piece, asked)
                readings, scores = work.score(scorer, work.windows)
                with self.database.transaction(SCORER) as transaction:
                    table.finish_piece(transaction, backfill_id, piece, group, readings)
                total += scores
            if done:
                done(piece)
        return total

    def _work(
        self,
        scorer: Scorer,
        request: Request,
        chunk: Chunk,
        piece: Window,
        asked: "_Asked",
    ) -> "_Work":
        """What of a piece is to be scored, as the mode asks."""
        machines = None
        if request.machines is not None or chunk.group is not None:
            machines = tuple(self._machines_of(request, chunk.group))
        job = Job(
            Origin.BACKFILL,
            asked.requested_by,
            retractable=sys.maxsize if asked.allow_retract else None,
            dry_run=asked.backfill_id is None,
            machines=machines,
            backfill_id=asked.backfill_id,
        )
        if request.mode is Mode.EVERYTHING:
            return _Work((piece,), job)
        found = scorer.find_mismatches(piece, register=not job.dry_run, machines=machines)
        moments: pd.Series = found.missing["utc_timestamp"].drop_duplicates()
        job = replace(job, retractable=0)
        if request.mode is Mode.CHANGED:
            moments = found.moments
            tolerable = asked.allow_retract or may_retract(
                len(found.deleted), found.verdicts, self.settings.scoring
            )
            job = replace(job, retractable=len(found.deleted) if tolerable else 0)
        longest = piece.end - piece.start
        windows = [
            window
            for span in spans(moments, self.settings.meter.interval, longest)
            if (window := span.within(piece)) is not None
        ]
        withholds = request.mode is Mode.CHANGED  # 'missing' takes nothing away
        return _Work(tuple(windows), job, found.readings, withholds=withholds)

    # Report ---------------------------------------------------------------

    def report(self, backfill_id: int, *, is_finished: bool) -> BackfillReport:
        """What a backfill has changed, from the ledger; it is kept in ``anomaly.backfills``.

        Parameters
        ----------
        is_finished : bool
            All chunks are done: the version of the backfill is in force for good.
        """
        request = self.request_of(backfill_id)
        after = self.versions(request.window)
        with self.database.transaction(SCORER) as transaction:
            finished = table.finished_pieces(transaction, backfill_id)
            published = table.published_windows(transaction, backfill_id)
            (row,) = table.backfill_rows(transaction, backfill_id)
            total = BackfillReport(
                sum(piece["readings"] for piece in finished),
                **{name: sum(run[name] for run in published) for name in COUNTS},
                seconds=table.seconds_taken(transaction, backfill_id),
            )
            changes = [run["changes"] for run in published if run["changes"]]
            flips, incidents, again = Flips(), IncidentsChanged(), 0
            for change in changes:
                flips += flips_of(change["flips"])
                incidents += incidents_of(change["incidents"])
                again += change["again"]
            total = replace(total, flips=flips, incidents=incidents, updated=total.updated - again)
            if request.mode is Mode.MISSING:
                total = replace(total, retraction_withheld=0)
            total = self.joined(total)
            versions = {
                "versions_before": row["report"]["versions_before"],
                "versions_after": after,
            }
            kept = versions | total.as_dict()
            table.keep_report(transaction, backfill_id, kept, is_finished=is_finished)
        if is_finished and request.version is not None:
            Promoter(self.database, self.settings).finish_range(request.version)
        return total

    def joined(self, report: BackfillReport) -> BackfillReport:
        """A report of several chunks, with each incident once."""
        apart = join_after(self.settings.meter) + self.settings.meter.interval
        return replace(report, incidents=report.incidents.joined(apart))

    def as_markdown(
        self,
        request: Request,
        report: BackfillReport,
        *,
        backfill_id: int | None = None,
        estimated: float | None = None,
    ) -> str:
        """The report for people; without a number it is a preview's."""
        with self.database.transaction(SCORER, read_only=True) as transaction:
            known = known_machines(transaction)
            before = None
            if backfill_id is not None:
                (row,) = table.backfill_rows(transaction, backfill_id)
                before = row["report"]["versions_before"]
        names = dict(zip(known["machine_id"].tolist(), known["name"].tolist(), strict=True))
        before = before or self.versions(request.window)
        versions = f"{before}, as in force"
        if request.version is not None and backfill_id is None:
            with self.database.transaction(SCORER, read_only=True) as transaction:
                status = require_version(transaction, request.version)["status"]
            refused = ", which the gate refused," if status == "refused" else ""
            versions = f"{before} now; version {request.version}{refused} would be in force"
        elif request.version is not None:
            versions = f"{before} before; {self.versions(request.window)} now"
        chosen = [names.get(number, str(number)) for number in request.machines or ()]
        more = f" and {len(chosen) - 10} more" if len(chosen) > 10 else ""
        start, end = request.window.start, request.window.end
        asked = {
            "range": f"{start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC",
            "machines": ", ".join(chosen[:10]) + more if chosen else "all",
            "versions": versions,
            "mode": request.mode.value,
        }
        title = "Preview: nothing is written yet"
        if backfill_id is not None:
            title = f"Backfill {backfill_id}"
        return as_markdown(report, title, asked, names, estimated, is_preview=backfill_id is None)

    def versions(self, window: Window) -> str:
        """The versions in force in a range, in words."""
        try:
            with self.database.transaction(SCORER, read_only=True) as transaction:
                parts = versions_in_force(transaction, window)
        except NoModelError:
            return "none"
        numbers = [part.version for part in parts]
        if len({*numbers}) == 1:
            return f"version {numbers[0]}"
        return ", ".join(
            f"version {part.version} from {part.window.start:%Y-%m-%d %H:%M}" for part in parts
        )


@dataclass(frozen=True)
class _Asked:
    """What a piece is scored for; without a backfill nothing is written."""

    backfill_id: int | None = None
    requested_by: RequestedBy = field(default_factory=lambda: RequestedBy("preview"))
    allow_retract: bool = False


@dataclass(frozen=True)
class _Work:
    """What of a piece is to be scored.

    Attributes
    ----------
    readings : int or None
        Of the piece; None: those of its only window.
    withholds : bool
        Retractions that are withheld are worth telling.
    """

    windows: tuple[Window, ...]
    job: Job
    readings: int | None = None
    withholds: bool = True

    def score(self, scorer: Scorer, counted: tuple[Window, ...]) -> tuple[int, ScoreReport]:
        """Score it; return the readings of the piece, and what was done.

        Parameters
        ----------
        counted : tuple of Window
            As in `Job`.
        """
        scores = ScoreReport()
        for window in self.windows:
            scores += scorer.score_window(window, replace(self.job, counted=counted))
        if not self.withholds:
            scores = replace(scores, retraction_withheld=0)
        return scores.read if self.readings is None else self.readings, scores
