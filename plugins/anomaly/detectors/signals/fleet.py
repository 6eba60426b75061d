"""The fleet's row: how a machine is judged that training has not seen."""

from copy import copy
from dataclasses import fields, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from anomaly.arrays import Bools, Floats, Ints
from anomaly.detectors.signals.calibration import CAUTION, AlertBudgets, calibrate
from anomaly.detectors.signals.detector import BY_ROW, SignalDetector
from anomaly.detectors.signals.forests import scale_signals
from anomaly.detectors.signals.signals import NAMES, Readings, measure_signals
from anomaly.detectors.signals.usual_day import UsualDay
from anomaly.detectors.signals.usual_day_training import (
    FOLDS,
    Machines,
    TrainingReadings,
)
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
    machines: Machines,
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
    count = len(machines.ids)
    few = np.linspace(0, count - 1, min(MOST_MACHINES, count)).astype(np.int64)
    alike = Machines(
        machines.ids[few],
        np.full(len(few), _most_common(machines.zones)),
        np.full(len(few), _most_common(machines.calendars)),
    )
    seen = table[np.isin(table["machine_id"].to_numpy(), alike.ids)]
    learnt = FleetReadings(seen, alike, meter, training)
    signals = learnt.held_out_signals()
    scaled = replace(scale_signals(learnt, signals, meter), tables=tables)
    budget, caution = np.array([training.alert_budget]), np.array([CAUTION])
    detector, evidence, budgets = calibrate(scaled, signals, learnt, budget, caution)
    if not np.isfinite(detector.decay).any():
        return replace(detector, limit=np.full(1, np.inf))
    each = AlertBudgets(evidence, learnt.by_machine(), caution).limit(budget)
    known = np.append(each[np.isfinite(each)], detector.limit)
    limit = np.maximum(detector.limit, np.quantile(known, _WITHIN_BUDGET, method="higher"))
    return replace(detector, limit=limit, realised_rate=budgets.incidents(limit) / learnt.weeks)


def _most_common(names: npt.NDArray[np.str_]) -> str:
    found, machines = np.unique(names, return_counts=True)
    return str(found[machines.argmax()])


def with_fleet_row(detector: SignalDetector, fleet: SignalDetector) -> SignalDetector:
    """Put the fleet's row behind the rows of the machines."""
    usual: dict[str, Any] = {}
    for name in (field.name for field in fields(UsualDay)):
        if name == "holidays":  # the calendars of all machines, of which the fleet's is one
            continue
        both = [getattr(detector.usual, name), getattr(fleet.usual, name)]
        usual[name] = np.concatenate(both, axis=1 if name in ("lower", "upper") else 0)
    most_common = np.bincount(detector.usual.calendar + 1).argmax() - 1  # numbers go by name
    usual["calendar"] = np.append(detector.usual.calendar, most_common)
    joined: dict[str, Any] = {
        name: np.concatenate([getattr(detector, name), getattr(fleet, name)]) for name in BY_ROW
    }
    return replace(detector, usual=replace(detector.usual, **usual), **joined)


class FleetReadings(TrainingReadings):
    """Readings of several machines, learnt as if they were all of one machine.

    So its usual day has a single row: the fleet's.
    """

    def held_out_signals(self) -> Floats:
        """Signals of each reading by the usual day of other machines; NaN for a single machine."""
        signals = np.full((len(self.lanes), len(NAMES)), np.nan)
        count = len(self._machines.ids)
        folds = min(FOLDS, count)
        fold = np.arange(count) % folds
        for number in range(folds if folds > 1 else 0):
            mine, others = fold[self.lanes] == number, fold != number
            learnt = FleetReadings(
                self._measured[~mine], self._machines.some(others), self._meter, self._training
            )
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

    def _blank(self, low: Floats, high: Floats, calendar: Ints, holidays: Ints) -> UsualDay:
        blank = super()._blank(low, high, calendar[:1], holidays)
        return replace(
            blank,
            machine_ids=self._machines.ids[:0],
            time_zones=self._machines.zones[:1],
            running_above=np.full(1, np.inf),
        )

    def _with_courses(self, usual: UsualDay, kept: Bools) -> UsualDay:
        return usual  # of machines of different sizes there is no usual course
