"""A tick: what the scheduled scoring does every interval, and what it catches up on."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from anomaly.database.connection import SCORER
from anomaly.database.results import Origin
from anomaly.database.scoring_runs import (
    LiveCoverage,
    RequestedBy,
    draw_token,
    live_coverage,
    open_coverage,
)
from anomaly.errors import NoModelError
from anomaly.scoring.publishing import Job, ScoreReport
from anomaly.scoring.scorer import Scorer
from anomaly.windows import Window, floor_to_interval, spans


def score_tick(scorer: Scorer, interval: Window, requested_by: RequestedBy) -> ScoreReport:
    """Score what is due at the end of `interval`, and what earlier ticks have missed.

    First come older readings that were written since the last tick. Then comes the window: from
    the end of live coverage (the watermark), or the interval's start if that is earlier, less
    the lateness, to the interval's end.

    Late readings must come first. What a tick looks for is what was written since the newest
    ``ingested_at`` that a published live window has seen. Publishing the window moves that
    mark. A tick that published its window first, and was killed before it scored the late
    readings, would have moved the mark beyond them: no later tick would look for them, and they
    would wait for the daily reconciliation.

    Raises
    ------
    NoModelError
        Before a first model is in force. Coverage begins all the same, so that the first run
        with a model scores what has come in since.
    """
    with scorer.database.transaction(SCORER, read_only=True) as transaction:
        covered = live_coverage(transaction)
    meter, scoring = scorer.settings.meter, scorer.settings.scoring
    begin = min(covered.watermark or interval.start, interval.start)
    start = begin - scoring.lateness(meter.interval)
    due = floor_to_interval(interval.end, meter.interval)
    if due <= start:
        return ScoreReport()
    window = Window(start, due)
    job = Job(Origin.LIVE, requested_by, late_before=covered.watermark)
    try:
        report = _score_late(scorer, window, covered, requested_by)
        for chunk in _occupied_chunks(scorer, window):
            report += scorer.score_window(chunk, job)
    except NoModelError as error:
        if covered.watermark is None:
            _open_coverage(scorer, interval.start, requested_by)
        raise NoModelError(f"{error}{_missing_history(scorer, due)}") from None
    return report


# Late readings ---------------------------------------------------------------------


def _score_late(
    scorer: Scorer, window: Window, covered: LiveCoverage, requested_by: RequestedBy
) -> ScoreReport:
    """Score older readings that were written since the last tick, where that changes a verdict.

    As far back as a reconciliation looks; what is older is a backfill's work.
    """
    total = ScoreReport()
    if covered.ingested_through is None:
        return total
    oldest = window.start - scorer.settings.scoring.reconcile_horizon
    late = Window(oldest, window.start)
    for span in _written_since(scorer, covered.ingested_through, late):
        if not scorer.find_mismatches(span, register=True).moments.empty:
            total += scorer.score_window(span, Job(Origin.LATE, requested_by))
    return total


def _written_since(scorer: Scorer, seen: datetime, window: Window) -> list[Window]:
    """Spans of `window` with rows written since, and a while before for open transactions."""
    minutes = scorer.settings.scoring.ingested_overlap_minutes
    since = seen - timedelta(minutes=minutes)
    source = scorer.reader.source
    with scorer.database.transaction(SCORER, read_only=True) as transaction:
        shape = source.describe(transaction)
        if not shape.has_ingested_at:
            return []
        moments = source.ingested_since(transaction, shape, since, window)
    return [
        Window(max(span.start, window.start), min(span.end, window.end))
        for span in spans(moments, scorer.settings.meter.interval, scorer.longest_chunk())
    ]


# The window ------------------------------------------------------------------------


def _occupied_chunks(scorer: Scorer, window: Window) -> Iterator[Window]:
    """Cut a window into chunks, leaping over spans in which nothing was metered."""
    start, longest = window.start, _longest_of_a_tick(scorer)
    while start < window.end:
        end = min(start + longest, window.end)
        following = _next_reading(scorer, end) if end < window.end else end
        if following is None or following > end:
            leap = window.end if following is None else min(following, window.end)
            end = max(end, floor_to_interval(leap, scorer.settings.meter.interval))
        yield Window(start, end)
        start = end


def _longest_of_a_tick(scorer: Scorer) -> timedelta:
    """What a tick looks at when nothing was missed is one window, of however many machines."""
    meter, scoring = scorer.settings.meter, scorer.settings.scoring
    usual = scoring.lateness(meter.interval) + meter.interval
    return min(scoring.chunk, max(scorer.longest_chunk(), usual))


def _next_reading(scorer: Scorer, moment: datetime) -> datetime | None:
    source = scorer.reader.source
    with scorer.database.transaction(SCORER, read_only=True) as transaction:
        shape = source.describe(transaction)
        return source.next_reading(transaction, shape, moment)


# Before there is a model -------------------------------------------------------------


def _open_coverage(scorer: Scorer, moment: datetime, requested_by: RequestedBy) -> None:
    run_id = draw_token(scorer.database)
    with scorer.database.transaction(SCORER) as transaction:
        open_coverage(transaction, run_id, moment, requested_by)


def _missing_history(scorer: Scorer, due: datetime) -> str:
    """How long until a first training is possible, to be added to what went wrong."""
    source, training = scorer.reader.source, scorer.settings.training
    with scorer.database.transaction(SCORER, read_only=True) as transaction:
        shape = source.describe(transaction)
        extent = source.extent(transaction, shape)
        newest = source.previous_reading(transaction, shape, due)
    if extent is None or newest is None:
        return f"; {scorer.settings.meter_table.source_name} is empty so far"
    end = min(newest + scorer.settings.meter.interval, due)
    history = end - extent[0] - timedelta(days=training.judging_days)
    missing = training.missing_history(history / timedelta(days=1))
    return f"; there are {missing}" if missing else ""
