"""Score readings: the one path that DAGs, the command line, the API and backfills take."""

import random
import sys
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd

from anomaly.contradictions import REACH
from anomaly.differences import Differences, compare
from anomaly.errors import (
    ArtefactError,
    DatabaseError,
    NoModelError,
    SettingsError,
    StaleAttemptError,
)
from anomaly.model import Model, judge_readings
from anomaly.postgres.current import Current, read_current
from anomaly.postgres.database import SCORER, Database, Transaction
from anomaly.postgres.readings import Context, LeapLimits, MeasuredWindow, WindowReader
from anomaly.postgres.results import (
    Attempt,
    Publisher,
    RunContext,
    ScoreReport,
    count_runs,
    draw_token,
    first_unscored,
)
from anomaly.postgres.source import SourceShape
from anomaly.postgres.versions import InForce, in_force
from anomaly.quality import Limits
from anomaly.registry import Registry
from anomaly.schema import Origin
from anomaly.settings import Settings
from anomaly.windows import Window, floor_to_interval, spans

_ATTEMPTS = 12
_LONGEST_PAUSE = 5.0


@dataclass(frozen=True)
class Job:
    """What is asked of a window, and by whom.

    Attributes
    ----------
    origin : Origin
        Why verdicts are written.
    context : RunContext
        The Airflow run or the command.
    retractable : int or None
        How many verdicts whose reading is gone may be retracted; None: the
        settings' share of the window.
    late_before : datetime or None
        Live windows: verdicts before this moment are `Origin.LATE`.
    """

    origin: Origin
    context: RunContext
    retractable: int | None = None
    late_before: datetime | None = None
    dry_run: bool = False


class Scorer:
    """Scores windows of one deployment.

    Parameters
    ----------
    database : Database
    settings : Settings
    """

    def __init__(self, database: Database, settings: Settings) -> None:
        self.database = database
        self.settings = settings
        self.registry = Registry(settings.models_url)
        self.reader = WindowReader(settings)

    # Use cases ----------------------------------------------------------

    def score_range(self, window: Window, job: Job) -> ScoreReport:
        """Score a range in chunks, oldest first; each is published on its own."""
        total = ScoreReport()
        for chunk in window.chunks(self.longest()):
            total += self.score_window(chunk, job)
        return total

    def longest(self) -> timedelta:
        """The longest range that is read and published at once.

        ``chunk_days``, and no more readings than ``chunk_readings`` where every machine
        has one an interval; an interval at least.
        """
        with self.database.transaction(SCORER, read_only=True) as transaction:
            machines = int(transaction.value("count_machines"))
        intervals = max(1, self.settings.chunk_readings // max(1, machines))
        return min(self.settings.chunk, intervals * self.settings.interval)

    def score_tick(self, interval: Window, context: RunContext) -> ScoreReport:
        """Score what is due at the end of `interval`, and what live runs have missed.

        The window runs from the end of live coverage, or the interval's start if
        that is earlier, less the lateness; then come older readings that were
        written since the last tick.

        Raises
        ------
        NoModelError
            Before a first model is in force; coverage begins all the same, so
            that the first run with a model scores what has come in since.
        """
        watermark, seen = self._live_coverage()
        start = min(watermark or interval.start, interval.start) - self.settings.lateness
        due = floor_to_interval(interval.end, self.settings.interval)
        if due <= start:
            return ScoreReport()
        window = Window(start, due)
        job = Job(Origin.LIVE, context, late_before=watermark)
        try:
            report = self._score_late(window, seen, context)
            for chunk in self._occupied_chunks(window):
                report += self.score_window(chunk, job)
        except NoModelError as error:
            if watermark is None:
                self._open_coverage(interval.start, context)
            raise NoModelError(f"{error}{self._missing_history(due)}") from None
        return report

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

    # One attempt --------------------------------------------------------

    def _attempt(self, window: Window, job: Job, *, scan: bool = False) -> ScoreReport:
        run_id = sys.maxsize if job.dry_run else draw_token(self.database)
        shape = self.reader.prepare(self.database, window, scan=scan, register=not job.dry_run)
        with ThreadPoolExecutor(1) as aside:  # the server reads while this process judges
            with self.database.transaction(SCORER, read_only=True) as transaction:
                versions = in_force(transaction, window)
                runs_seen = count_runs(transaction, window)
                models, context = self.judge_with(transaction, window, versions)
                coming = aside.submit(self._current, window, shape)
                measured = self.reader.read(
                    transaction,
                    shape,
                    window,
                    context=context,
                    judged_to=first_unscored(transaction),
                )
                new = self.reader.new_machines(transaction, shape, window) if job.dry_run else {}
            verdicts = self._judge(measured, versions, models)
            try:
                current = coming.result()
            except DatabaseError:  # a log-in may have one connection only: one after the other
                current = self._current(window, shape)
        if measured.unregistered and not (scan or job.dry_run):
            return self._attempt(window, job, scan=True)
        verdicts = verdicts.assign(origin=_origins(verdicts, job))
        attempt = Attempt(
            run_id=run_id,
            window=window,
            origin=job.origin,
            verdicts=verdicts,
            machines=measured.machines,
            current=current,
            versions=versions,
            runs_seen=runs_seen,
            readings=measured.readings,
            missing=measured.missing,
            duplicates=measured.duplicates,
            new_machines=new,
            ingested_through=measured.ingested_through,
            breaks=self.reader.breaks(measured, context),
        )
        del measured  # a publication may wait for the lock: let go of what it does not need
        return self._publisher(shape, job, window).publish(
            attempt, shape, job.context, retractable=job.retractable, dry_run=job.dry_run
        )

    def _context(
        self, transaction: Transaction, window: Window, models: Mapping[int, Model]
    ) -> Context:
        """What readings around a window matter to the models that judge it and the day before.

        The verdicts of that day may change with readings in the window.
        """
        before: dict[int, Model] = {}
        with suppress(NoModelError, ArtefactError):  # then the day before cannot be judged
            before = self.load(in_force(transaction, window.starting_earlier(REACH)))
        return reading_context((before | dict(models)).values(), self.settings)

    def _current(self, window: Window, shape: SourceShape) -> Current:
        """Read the verdicts that are there, once the ledger rows of the window are counted.

        Who publishes in between is seen by their count, and the attempt starts again.
        """
        with self.database.transaction(SCORER, read_only=True) as transaction:
            return read_current(transaction, window, [*shape.machines.values()] or None)

    def _publisher(self, shape: SourceShape, job: Job, window: Window) -> Publisher:
        def rescore(
            transaction: Transaction, around: Window, until: Mapping[int, datetime]
        ) -> pd.DataFrame:
            versions = in_force(transaction, around)
            models, context = self.judge_with(transaction, around, versions)
            measured = self.reader.read(
                transaction,
                shape,
                around,
                list(until),
                context,
                judged_to=max(first_unscored(transaction) or window.end, window.end),
            )
            verdicts = self._judge(measured, versions, models)
            reached = verdicts["utc_timestamp"] <= verdicts["machine_id"].map(until)
            origin = Origin.LATE if job.origin is Origin.LIVE else job.origin
            return verdicts[reached].assign(origin=origin.value)

        return Publisher(self.database, self.reader.source, self.settings, rescore)

    def _judge(
        self, measured: MeasuredWindow, versions: tuple[InForce, ...], models: Mapping[int, Model]
    ) -> pd.DataFrame:
        """Each reading by the version in force at its own timestamp."""
        parts = []
        stamps = measured.context["utc_timestamp"]
        for part in versions:
            during = (stamps >= part.window.start) & (stamps < part.window.end)
            mine = measured.inside & during.to_numpy()
            verdicts = judge_readings(measured.context, mine, models[part.version], self.settings)
            parts.append(verdicts.assign(model_version=part.version))
        if len(parts) == 1:
            return parts[0]
        return pd.concat(parts, ignore_index=True).sort_values(
            ["machine_id", "utc_timestamp"], ignore_index=True
        )

    def compare(self, window: Window, *, register: bool) -> Differences:
        """Compare readings and verdicts of a window exactly, as `anomaly.differences` says."""
        return compare(self.database, self.reader, window, self.judge_with, register=register)

    def judge_with(
        self, transaction: Transaction, window: Window, versions: tuple[InForce, ...]
    ) -> tuple[dict[int, Model], Context]:
        """The models that judge a window, and how far around it they look."""
        models = self.load(versions)
        return models, self._context(transaction, window, models)

    def load(self, versions: Iterable[InForce]) -> dict[int, Model]:
        """Open the models of the versions in force.

        Raises
        ------
        ArtefactError
            When a model's files are missing or changed.
        SettingsError
            When a model was trained on another kind of readings.
        """
        models = {part.version: self.registry.load(part.artefact) for part in versions}
        for version, model in models.items():
            _refuse_other_readings(version, model, self.settings)
        return models

    # Live coverage ------------------------------------------------------

    def _live_coverage(self) -> tuple[datetime | None, datetime | None]:
        """End of what live runs have covered, and the newest ``ingested_at`` they saw."""
        with self.database.transaction(SCORER, read_only=True) as transaction:
            row = transaction.row("live_coverage")
        return row["watermark"], row["ingested_through"]

    def _open_coverage(self, moment: datetime, context: RunContext) -> None:
        run_id = draw_token(self.database)
        with self.database.transaction(SCORER) as transaction:
            transaction.run("open_coverage", run_id=run_id, moment=moment, **vars(context))

    def _missing_history(self, due: datetime) -> str:
        """How long until a first training is possible, to be added to what went wrong."""
        with self.database.transaction(SCORER, read_only=True) as transaction:
            shape = self.reader.source.describe(transaction)
            extent = self.reader.source.extent(transaction, shape)
            newest = self.reader.source.previous_reading(transaction, shape, due)
        if extent is None or newest is None:
            return f"; {self.settings.source_name} is empty so far"
        end = min(newest + self.settings.interval, due)
        history = end - extent[0] - timedelta(days=self.settings.judging_days)
        missing = self.settings.missing_history(history / timedelta(days=1))
        return f"; there are {missing}" if missing else ""

    def _occupied_chunks(self, window: Window) -> Iterable[Window]:
        """Cut a window into chunks, leaping over spans in which nothing was metered."""
        start, longest = window.start, self._longest_of_a_tick()
        while start < window.end:
            end = min(start + longest, window.end)
            following = self._next_reading(end) if end < window.end else end
            if following is None or following > end:
                leap = window.end if following is None else min(following, window.end)
                end = max(end, floor_to_interval(leap, self.settings.interval))
            yield Window(start, end)
            start = end

    def _longest_of_a_tick(self) -> timedelta:
        """What a tick looks at when nothing was missed is one window, of however many machines."""
        usual = self.settings.lateness + self.settings.interval
        return min(self.settings.chunk, max(self.longest(), usual))

    def _next_reading(self, moment: datetime) -> datetime | None:
        with self.database.transaction(SCORER, read_only=True) as transaction:
            shape = self.reader.source.describe(transaction)
            return self.reader.source.next_reading(transaction, shape, moment)

    def _score_late(
        self, window: Window, seen: datetime | None, context: RunContext
    ) -> ScoreReport:
        """Score older readings that were written since the last tick, where that changes a verdict.

        As far back as a reconciliation looks; what is older is a backfill's work.
        """
        total = ScoreReport()
        oldest = window.start - self.settings.reconcile_horizon
        for span in self._written_since(seen, Window(oldest, window.start)) if seen else []:
            if not self.compare(span, register=True).moments.empty:
                total += self.score_window(span, Job(Origin.LATE, context))
        return total

    def _written_since(self, seen: datetime, window: Window) -> list[Window]:
        """Spans of `window` with rows written since, and a while before for open transactions."""
        since = seen - timedelta(minutes=self.settings.ingested_overlap_minutes)
        source = self.reader.source
        with self.database.transaction(SCORER, read_only=True) as transaction:
            shape = source.describe(transaction)
            if not shape.has_ingested_at:
                return []
            moments = source.ingested_since(transaction, shape, since, window)
        return [
            Window(max(span.start, window.start), min(span.end, window.end))
            for span in spans(moments, self.settings.interval, self.longest())
        ]


def reading_context(models: Iterable[Model], settings: Settings) -> Context:
    """How far around a window readings matter to the models that judge it."""
    judging = list(models)
    limits = [(model.profiles.index, Limits.of(model.profiles)) for model in judging]
    by_machine = pd.concat([pd.Series(found.leap_kw[:-1], index) for index, found in limits])
    return Context(
        max(model.detector.reach for model in judging),
        frozenset().union(*(model.hardly_ever_flat(settings) for model in judging)),
        LeapLimits(
            by_machine.groupby(level=0).min(),
            float(np.fmin.reduce([found.leap_kw[-1] for _, found in limits])),
        ),
    )


def _origins(verdicts: pd.DataFrame, job: Job) -> "pd.Categorical[Any]":
    if job.late_before is None:
        late = np.zeros(len(verdicts), dtype=bool)
    else:
        late = (verdicts["utc_timestamp"] < job.late_before).to_numpy()
    names = [origin.value for origin in Origin]
    codes = np.where(late, names.index(Origin.LATE), names.index(job.origin))
    return pd.Categorical.from_codes(codes, dtype=pd.CategoricalDtype(names))


def _refuse_other_readings(version: int, model: Model, settings: Settings) -> None:
    trained = (model.reading_kind, model.interval_minutes)
    asked = (settings.reading_kind.value, settings.interval_minutes)
    if trained != asked:
        raise SettingsError(
            f"model version {version} was trained on {trained[0]} every {trained[1]} minutes,"
            f" the settings say {asked[0]} every {asked[1]}: set ANOMALY_READING_KIND and"
            " ANOMALY_INTERVAL_MINUTES to what the meter table holds, or train a new version"
        )
