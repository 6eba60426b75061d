"""Train the detector `signals`: usual days, forests, calibration, and the fleet's row."""

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from anomaly.arrays import Bools, Floats, Ints
from anomaly.detectors.signals.calibration import CAUTION, AlertBudgets, calibrate
from anomaly.detectors.signals.detector import SignalDetector
from anomaly.detectors.signals.fleet import fleet_detector, with_fleet_row
from anomaly.detectors.signals.forests import fit_forests, scale_signals
from anomaly.detectors.signals.level_changes import level_change_time
from anomaly.detectors.signals.signals import NAMES
from anomaly.detectors.signals.usual_day_training import Machines, TrainingReadings
from anomaly.readings.preprocessing import microseconds
from anomaly.settings import MeterSettings, TrainingSettings

RULES = ("news", "floor", "level change", "holidays")
"""What is no signal and can be left out of a training, too, to see what it is worth: a level that
stays counts once, what costs next to nothing does not count, what lies before a lasting change of
level is not learnt from, a public holiday is a Sunday."""

_KNOWN = ["time_zone", "alert_budget", "often_flat", "holidays", "caution"]


@dataclass(frozen=True)
class TrainedDetector:
    """A detector, and the evidence of its training readings, held out.

    Attributes
    ----------
    detector : SignalDetector
    evidence : array, shape (reading,)
        NaN for readings from before the machine's last change of level.
    """

    detector: SignalDetector
    evidence: Floats
    _budgets: AlertBudgets

    def limit(self, budget: float | Floats) -> Floats:
        """Evidence of each machine that so many incidents per week reach: shape (machine,)."""
        return self._budgets.limit(budget)


def train_signals(
    measured: pd.DataFrame,
    machines: pd.DataFrame,
    meter: MeterSettings,
    training: TrainingSettings,
    *,
    without: Collection[str] = (),
) -> TrainedDetector:
    """Train on measured readings; the same readings give the same detector, bit for bit.

    Parameters
    ----------
    measured : DataFrame
        As `anomaly.readings.measuring.measure` returns it, without meter faults, sorted by
        machine and time.
    machines : DataFrame
        Indexed by ``machine_id``: ``time_zone``, ``alert_budget`` (incidents per week; NaN:
        the setting's), ``often_flat`` (bool), and where they are known ``holidays`` (its
        calendar; missing: the setting's) and ``caution`` (what its budget is divided by;
        missing: `CAUTION`). A machine that is missing in it stands in UTC and has the
        setting's budget.
    without : collection of str
        Signals and `RULES` that shall count for nothing, to see what they are worth.

    Raises
    ------
    SettingsError
        When there is no such holiday calendar.
    """
    if "floor" in without:
        nothing = {"least_deviation_share": 0.0, "least_deviation_kw": 0.0}
        training = training.model_copy(update=nothing)
    ids = np.unique(measured["machine_id"].to_numpy(np.int64))
    known = machines.reindex(ids, columns=_KNOWN)
    zones = known["time_zone"].fillna("UTC").to_numpy(dtype=str)
    calendars = known["holidays"].astype(object).fillna(training.holidays).to_numpy(dtype=str)
    budget = known["alert_budget"].fillna(training.alert_budget).to_numpy(np.float64)
    caution = known["caution"].fillna(CAUTION).to_numpy(np.float64)
    often_flat = known["often_flat"].fillna(False).to_numpy(dtype=bool)
    if "holidays" in without:
        calendars = np.full_like(calendars, "")
    kept = _is_since_level_change(measured, ids)
    if "level change" in without:
        kept = np.ones_like(kept)
    table = measured[kept].reset_index(drop=True)
    described = Machines(ids, zones, calendars)
    only_news = "news" not in without
    learnt = TrainingReadings(table, described, meter, training, only_news=only_news)
    signals = learnt.held_out_signals()
    signals[often_flat[learnt.rows], NAMES.index("flat")] = np.nan
    signals[:, [NAMES.index(name) for name in without if name in NAMES]] = np.nan
    scaled = scale_signals(learnt, signals, meter)
    scaled = replace(scaled, tables=fit_forests(scaled, signals, learnt, training.random_seed))
    detector, evidence, budgets = calibrate(scaled, signals, learnt, budget, caution)
    everything = np.full(len(measured), np.nan)
    everything[kept] = evidence
    fleet = fleet_detector(table, described, scaled.tables, meter, training)
    return TrainedDetector(with_fleet_row(detector, fleet), everything, budgets)


def _is_since_level_change(measured: pd.DataFrame, ids: Ints) -> Bools:
    """Whether each reading is no older than its machine's last lasting change of level."""
    rows = np.searchsorted(ids, measured["machine_id"].to_numpy())
    ticks = microseconds(measured["utc_timestamp"])
    since = level_change_time(measured["power_kw"].to_numpy(), ticks, rows, len(ids))
    kept: Bools = ticks >= since[rows]
    return kept
