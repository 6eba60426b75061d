"""Sums of verdicts per machine and local hour and day: what the views of ``bi`` read."""

from collections.abc import Sequence

import pandas as pd

from anomaly.database.connection import Transaction


def refresh_sums(transaction: Transaction, changed: Sequence[pd.DataFrame]) -> None:
    """Make the sums right again after verdicts were written or removed, in their transaction.

    Parameters
    ----------
    changed : sequence of DataFrame
        ``machine_id`` and ``utc_timestamp`` of verdicts that are new, changed or gone.
    """
    keys = [frame[["machine_id", "utc_timestamp"]] for frame in changed if len(frame)]
    if not keys:
        return
    spans = pd.concat(keys).groupby("machine_id")["utc_timestamp"].agg(["min", "max"])
    transaction.run(
        "sums/refresh",
        machines=spans.index.to_list(),
        firsts=spans["min"].dt.to_pydatetime().tolist(),
        lasts=spans["max"].dt.to_pydatetime().tolist(),
    )
