"""Which verdicts outside a window change when readings in it do.

After a window, a verdict depends on the readings of the day before it, and on the one right
before it. Before a window, a counter that comes back or catches up contradicts readings of the day
before. Both are judged again in the transaction that publishes the window.
"""

from collections.abc import Sequence
from datetime import datetime

import numpy as np
import pandas as pd

from anomaly.arrays import Ints
from anomaly.database.connection import Transaction
from anomaly.database.results import CurrentVerdicts, contradicted_machines, last_verdicts_after
from anomaly.readings.contradictions import REACH
from anomaly.scoring.comparison import VerdictChanges
from anomaly.settings import MeterSettings
from anomaly.windows import Window


def machines_to_judge_before(
    transaction: Transaction,
    before: Window,
    verdicts: pd.DataFrame,
    found: VerdictChanges,
    current: CurrentVerdicts,
    breaks: Sequence[int],
    *,
    is_newest: bool,
) -> list[int]:
    """Machines whose readings in the day before a window may have to be judged again.

    Parameters
    ----------
    breaks : sequence of int
        Machines with a reading in the window that breaks with the one before it.
    is_newest : bool
        Nothing after the window was scored yet. Else every new verdict is a late one.
    """
    machine = verdicts["machine_id"].to_numpy()
    corrected = {*machine[found.reading_changed].tolist(), *found.gone["machine_id"].tolist()}
    breaking = set(machine[found.new | found.changed].tolist()) & set(breaks)
    late = machine[:0] if is_newest else machine[found.new]
    late = np.unique(np.append(late, _filled_in(verdicts, found, current)))
    contradicted = contradicted_machines(transaction, late.tolist(), before)
    return sorted(map(int, {*corrected, *breaking, *contradicted}))


def last_to_judge_after(
    transaction: Transaction,
    end: datetime,
    verdicts: pd.DataFrame,
    found: VerdictChanges,
    meter: MeterSettings,
) -> dict[int, datetime]:
    """When the last verdict is that changed readings reach after a window, of each machine.

    Twice the reach: a reading that stands or falls with one of the day before it is itself
    looked back at for a day.
    """
    changes = _last_changes(verdicts, found)
    moments = {
        machine: moment.to_pydatetime()
        for machine, moment in zip(changes.index.tolist(), changes, strict=True)
    }
    return last_verdicts_after(transaction, moments, end, 2 * REACH, meter.max_gap)


def _last_changes(verdicts: pd.DataFrame, found: VerdictChanges) -> pd.Series:
    """When the last reading of each machine changed, of those whose readings did."""
    columns = ["machine_id", "utc_timestamp"]
    touched = verdicts.loc[found.new | found.reading_changed, columns]
    both = pd.concat([touched, found.gone]) if len(found.gone) else touched
    latest: pd.Series = both.groupby("machine_id")["utc_timestamp"].max()
    return latest


def _filled_in(verdicts: pd.DataFrame, found: VerdictChanges, current: CurrentVerdicts) -> Ints:
    """Machines with a new verdict before one that was there: its reading came late."""
    new = verdicts.loc[found.new].groupby("machine_id")["utc_timestamp"].min()
    stamps = pd.DatetimeIndex(current["utc_timestamp"], tz="UTC")
    newest = pd.Series(stamps).groupby(current["machine_id"]).max()
    late = new.index[new < newest.reindex(new.index)]
    machines: Ints = late.to_numpy(np.int64)
    return machines
