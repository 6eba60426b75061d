"""Retraction: which verdicts may go when their reading is gone, and how many at once.

A reading that was deleted takes its verdict with it. A source that was purged, or is empty by
mistake, must not: so only verdicts between the source's first and last reading may go, and never
more than a small share at once unless somebody allows it (docs/adr/0004).
"""

from datetime import datetime

import pandas as pd

from anomaly.settings import ScoringSettings


def within_source(gone: pd.DataFrame, extent: tuple[datetime, datetime] | None) -> pd.DataFrame:
    """Keys of verdicts without a reading that lie between the source's first and last reading.

    What lies outside was purged, or is yet to come.

    Parameters
    ----------
    gone : DataFrame
        With ``utc_timestamp``.
    extent : tuple of datetime or None
        Of the source; None: it is empty, so nothing may go.
    """
    if extent is None:
        return gone.iloc[:0]
    inside: pd.DataFrame = gone[gone["utc_timestamp"].between(*extent)]
    return inside


def may_retract(gone: int, verdicts: int, scoring: ScoringSettings) -> bool:
    """Whether so many of a range's verdicts may go together."""
    return gone <= retractable(verdicts, scoring)


def retractable(verdicts: int, scoring: ScoringSettings) -> int:
    """How many of a range's verdicts may go."""
    return int(scoring.retract_limit * verdicts)
