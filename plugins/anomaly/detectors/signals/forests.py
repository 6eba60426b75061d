"""Scale signals by machine, and fit the forest of each."""

import numpy as np
from sklearn.ensemble import IsolationForest

from anomaly.arrays import Floats
from anomaly.detectors.quantiles import quantiles
from anomaly.detectors.signals.detector import SignalDetector
from anomaly.detectors.signals.signals import NAMES
from anomaly.detectors.signals.usual_day_training import TrainingReadings
from anomaly.detectors.step_table import StepTable, compile_forest
from anomaly.settings import MeterSettings

TREES = 60
"""Trees of a forest over one signal. Chosen with the first sketch of this detector: the forest of
the prototype, over power_diff and machine together, has 350."""

MAX_SAMPLES = 256
"""Readings that a tree is grown on: the default of Isolation Forest (Liu, Ting and Zhou, 2008)."""

POOL = 20_000
"""Readings that the trees draw theirs from; of more, so many are drawn at random. Chosen: 60 trees
of 256 draw 15,360 readings."""

_QUARTILES_SIGMAS = 1.349
"""Standard deviations between the quartiles of a normal distribution."""

_EDGES = 0.01
"""Share of training values on either side that lies outside a signal's training range, so that a
few faults in training do not widen it. Chosen on injected faults
(docs/explanation/detection-lab-report.md)."""

_LEAST_SPREAD = {"run": 0.1, "pause": 0.1, "idle_6h": 0.25, "flat": 0.1, "shape_6h": 0.1}
"""Smallest spread of signals that are logarithms: 0.1 is a tenth of a run's length. A machine that
always runs equally long would alarm for a minute more. Chosen on injected faults."""

_LEAST_OF_HIGHEST = 0.05
"""Smallest spread of ``power_1h``, as a share of the most that the machine usually draws: beside
its own physical range a small record is nothing. Chosen on real sets and extremes written into
them (docs/explanation/detection-lab-report.md)."""

_EXTREMES = 0.0005
"""As `_EDGES`, of ``power_1h``: what counts there is that no hour of training came near."""

_LEAST_ASINH = 0.5
"""Smallest spread of deviations and ``change``, which are asinh of spreads. Chosen likewise."""


def scale_signals(
    learnt: TrainingReadings, signals: Floats, meter: MeterSettings
) -> SignalDetector:
    """A detector that scales each signal by its row's own centre and spread.

    It has neither forests nor limits yet.

    Parameters
    ----------
    signals : array, shape (reading, signal)
    """
    shares = (_EDGES, 0.25, 0.5, 0.75, 1 - _EDGES)
    found = [quantiles(signal, learnt.rows, learnt.count, shares) for signal in signals.T]
    bottom, quarter, centre, three, top = np.moveaxis(np.array(found), 0, 2)
    spread = np.maximum((three - quarter) / _QUARTILES_SIGMAS, _least_spread(learnt))
    power = NAMES.index("power_1h")
    bottom[:, power], top[:, power] = quantiles(
        signals[:, power], learnt.rows, learnt.count, (_EXTREMES, 1 - _EXTREMES)
    )
    bottom[:, power] -= learnt.usual.worth_telling  # a record by less is not worth telling
    top[:, power] += learnt.usual.worth_telling
    nothing = np.zeros(centre.shape)
    return SignalDetector(
        interval_minutes=meter.interval_minutes,
        usual=learnt.usual,
        centre=centre,
        spread=spread,
        low=(bottom - centre) / spread,
        high=(top - centre) / spread,
        tables=(),
        often=nothing,
        decay=nothing + 1,
        rarity=nothing,
        limit=nothing[:, 0],
        caution=nothing[:, 0] + 1,
        realised_rate=nothing[:, 0],
    )


def _least_spread(learnt: TrainingReadings) -> Floats:
    """The smallest spread of each signal, shape (row, signal)."""
    least = np.full((learnt.count, len(NAMES)), _LEAST_ASINH)
    for name, spread in _LEAST_SPREAD.items():
        least[:, NAMES.index(name)] = spread
    least[:, NAMES.index("running_4h")] = learnt.usual.least / 2
    least[:, NAMES.index("power_1h")] = _LEAST_OF_HIGHEST * learnt.highest
    return least


def fit_forests(
    scaled: SignalDetector, signals: Floats, learnt: TrainingReadings, seed: int
) -> tuple[StepTable, ...]:
    """Fit one forest per signal to the scaled readings of all machines together.

    The same signals and seed give the same forests, bit for bit.
    """
    return tuple(
        _fit_forest(scaled.scale(signals[:, k], learnt.rows, k), seed + k)
        for k in range(len(NAMES))
    )


def _fit_forest(scaled: Floats, seed: int) -> StepTable:
    known = scaled[np.isfinite(scaled)]
    if not len(known):
        known = np.zeros(1)  # a forest needs a number; this one isolates nothing
    if len(known) > POOL:
        known = np.random.default_rng(seed).choice(known, POOL, replace=False)
    forest = IsolationForest(
        n_estimators=TREES, max_samples=min(MAX_SAMPLES, len(known)), random_state=seed
    )
    return compile_forest(forest.fit(known[:, None]))
