"""The fleet's row: how a machine is judged that training has not seen."""

from copy import copy
from dataclasses import fields, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from anomaly.arrays import Floats, Ints
from anomaly.detectors.signals.calibration import AlertBudgets, calibrate
from anomaly.detectors.signals.detector import BY_ROW, SignalDetector
from anomaly.detectors.signals.forests import scale_signals
from anomaly.detectors.signals.signals import NAMES, Readings, measure_signals
from anomaly.detectors.signals.usual_day import UsualDay
from anomaly.detectors.signals.usual_day_training import FOLDS, TrainingReadings
from anomaly.detectors.step_table import StepTable
from anomaly.settings import MeterSettings, TrainingSettings

MOST_MACHINES = 100
"""Machines that the fleet's row is learnt from, evenly drawn. Chosen: it then takes a tenth of the
time of a training of 1,000 machines (docs/explanation/detection-lab-report.md)."""

_WITHIN_BUDGET = 0.9
"""Share of the fleet's machines that would each keep the budget, were they new. Chosen: a few that
are like no other may alarm more often until they are trained."""


def fleet_detector(
    table: pd.DataFrame,
    ids: Ints,
    zones: npt.NDArray[np.str_],
    tables: tuple[StepTable, ...],
    meter: MeterSettings,
    training: TrainingSettings,
) -> SignalDetector:
    """A detector whose only row is the fleet's: it judges machines that training has not seen.

    It has the fleet's most common time zone. Its limit keeps the setting's budget for all
    machines together, and for nine of ten machines on their own; a few that alarm much more do
    not set the limit of the others. Where nothing can be said of a fleet, as with a single
    machine, it never alarms.

    Parameters
    ----------
    table : DataFrame
        Measured readings of all machines.
    tables : tuple of StepTable
        The forests of the machines; the fleet has none of its own.
    """
    names, machines = np.unique(zones, return_counts=True)
    few = np.linspace(0, len(ids) - 1, min(MOST_MACHINES, len(ids))).astype(np.int64)
    seen = table[np.isin(table["machine_id"].to_numpy(), ids[few])]
    clock = np.full(len(few), names[machines.argmax()])
    learnt = FleetReadings(seen, ids[few], clock, meter.interval)
    signals = learnt.held_out_signals()
    scaled = replace(scale_signals(learnt, signals, meter), tables=tables)
    budget = np.array([training.alert_budget])
    detector, evidence, budgets = calibrate(scaled, signals, learnt, budget)
    if not np.isfinite(detector.decay).any():
        return replace(detector, limit=np.full(1, np.inf))
    each = AlertBudgets(evidence, learnt.by_machine()).limit(budget)
    known = np.append(each[np.isfinite(each)], detector.limit)
    limit = np.maximum(detector.limit, np.quantile(known, _WITHIN_BUDGET, method="higher"))
    return replace(detector, limit=limit, realised_rate=budgets.incidents(limit) / learnt.weeks)


def with_fleet_row(detector: SignalDetector, fleet: SignalDetector) -> SignalDetector:
    """Put the fleet's row behind the rows of the machines."""
    usual: dict[str, Any] = {}
    for name in (field.name for field in fields(UsualDay)):
        both = [getattr(detector.usual, name), getattr(fleet.usual, name)]
        usual[name] = np.concatenate(both, axis=1 if name in ("lower", "upper") else 0)
    joined: dict[str, Any] = {
        name: np.concatenate([getattr(detector, name), getattr(fleet, name)]) for name in BY_ROW
    }
    return replace(detector, usual=UsualDay(**usual), **joined)


class FleetReadings(TrainingReadings):
    """Readings of several machines, learnt as if they were all of one machine.

    So its usual day has a single row: the fleet's.
    """

    def held_out_signals(self) -> Floats:
        """Signals of each reading by the usual day of other machines; NaN for a single machine."""
        signals = np.full((len(self.lanes), len(NAMES)), np.nan)
        folds = min(FOLDS, len(self._ids))
        fold = np.arange(len(self._ids)) % folds
        for number in range(folds if folds > 1 else 0):
            mine, others = fold[self.lanes] == number, fold != number
            ids, zones = self._ids[others], self._zones[others]
            learnt = FleetReadings(self._measured[~mine], ids, zones, self.interval)
            readings = Readings(self._measured[mine], learnt.usual, self.interval)
            signals[mine] = measure_signals(readings, np.arange(mine.sum()))
        return signals

    def by_machine(self) -> Self:
        """The same readings, with one row per machine."""
        apart = copy(self)
        apart.rows, apart.count = super()._rows()
        return apart

    def _rows(self) -> tuple[Ints, int]:
        return np.zeros_like(self.lanes), 1

    def _blank(self, ids: Ints, zones: npt.NDArray[np.str_]) -> UsualDay:
        blank = super()._blank(ids[:0], zones[:1])
        return replace(blank, running_above=np.full(1, np.inf))
