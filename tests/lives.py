"""The lives of verdicts: history and ledger must tell how the results came to be what they are."""

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from anomaly.database.results import VERDICT_COLUMNS

Execute = Callable[[str], list[Any]]
"""Runs a statement and returns its rows."""


@dataclass(frozen=True)
class Life:
    """A verdict from when it was written to when it was replaced, and by which run and why."""

    run_id: int
    scored_at: datetime
    replaced: tuple[int, datetime]
    cause: str
    reading: float
    verdict: tuple[Any, ...]


def wrong_history(execute: Execute) -> list[str]:
    """Where history and ledger contradict the results, or each other.

    Every verdict of a reading was written by a run of the ledger, at its time, and replaced
    another one only if it differs from it. The run has counted what it wrote.
    """
    says, counted = [], Counter[tuple[int, str]]()
    ledger = execute(
        "SELECT run_id, published_at, inserted, updated, retracted, scored - unchanged"
        "  FROM anomaly.scoring_runs"
    )
    published = {run: at for run, at, *_ in ledger}
    for (machine, at), lives in _lives(execute).items():
        before = None
        for life in lives:
            if before is None or before.cause == "retracted":
                counted[life.run_id, "inserted"] += 1
            else:
                counted[life.run_id, "updated"] += 1
                if not _follows(before, life):
                    says.append(f"machine {machine} at {at}: {before} before {life}")
            if life.cause == "retracted":
                counted[life.replaced[0], "retracted"] += 1
            if published.get(life.run_id) != life.scored_at:
                says.append(f"machine {machine} at {at}: {life} is not in the ledger")
            before = life
        if lives[-1].cause not in ("", "retracted"):
            says.append(f"machine {machine} at {at}: {lives[-1]} before nothing")
    for run, _, *counts, written in ledger:
        found = [counted[run, what] for what in ("inserted", "updated", "retracted")]
        if found != counts or written != sum(counts[:2]):
            says.append(f"run {run} says inserted, updated, retracted {counts}, wrote {found}")
    return says


def _follows(before: Life, life: Life) -> bool:
    """Whether a verdict may have replaced the one before it, for the reason that is given."""
    is_corrected = repr(before.reading) != repr(life.reading)
    return (
        before.replaced == (life.run_id, life.scored_at)
        and (before.cause == "corrected") is is_corrected
        and repr(before.verdict) != repr(life.verdict)
    )


def _lives(execute: Execute) -> dict[tuple[int, datetime], list[Life]]:
    """Every verdict that each reading has ever had, in order."""
    verdict = ", ".join(VERDICT_COLUMNS)
    rows = execute(
        f"""
        SELECT machine_id, utc_timestamp, run_id, scored_at, superseded_by, superseded_at,
               cause, {verdict}
          FROM anomaly.anomaly_results_history
         UNION ALL
        SELECT machine_id, utc_timestamp, run_id, scored_at, NULL, 'infinity', '', {verdict}
          FROM anomaly.anomaly_results
         ORDER BY machine_id, utc_timestamp, superseded_at
        """
    )
    place, lives = VERDICT_COLUMNS.index("reading"), defaultdict(list)
    for machine, at, run, scored, by, until, cause, *values in rows:
        life = Life(run, scored, (by, until), cause, values[place], tuple(values))
        lives[machine, at].append(life)
    return lives
