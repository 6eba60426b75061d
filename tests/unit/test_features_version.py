"""Whoever changes what readings are turned into before they are judged has to say so."""

import numpy as np
import pytest
from meters import SETTINGS, machines, measured, odd_readings, shifts, steady

from anomaly.detectors.signals.signals import NAMES, measure_signals
from anomaly.detectors.signals.training import train_signals
from anomaly.models.verdicts import FEATURES_VERSION

MEASURED = ("power_kw", "power_diff", "energy_kwh", "energy_hours")
# By version: how many of the odd readings below have each signal, and its mean size; the same of
# what is measured first.
FEATURES = {
    2: {
        "change": (1540, 5.2694),
        "energy_hours": (1706, 0.94457),
        "energy_kwh": (1706, 25.846),
        "flat": (1800, 0.055699),
        "idle_6h": (714, 0.43732),
        "level_1h": (1573, 5.1771),
        "pause": (191, 1.175),
        "power_1h": (1573, 102.15),
        "power_diff": (1712, 98.547),
        "power_kw": (1706, 98.894),
        "quality": (1800, 0.57),
        "run": (190, 0.98711),
        "running_4h": (303, 168.99),
        "shape_6h": (44, 5.1947),
        "throughout_4h": (1157, 0.062072),
    },
}


def features():
    learnt = measured({1: shifts(35), 2: steady(35)})
    detector = train_signals(learnt, machines(1, 2), SETTINGS.meter, SETTINGS.training).detector
    found = {}
    for seed in range(3):
        frame = odd_readings(seed)
        signals = measure_signals(detector.readings(frame), np.arange(len(frame)))
        columns = dict(zip(NAMES, signals.T, strict=True))
        columns |= {name: frame[name].to_numpy(float) for name in MEASURED}
        columns["quality"] = frame["quality"].to_numpy(float)
        for name, values in columns.items():
            found.setdefault(name, []).extend(np.abs(values[np.isfinite(values)]))
    return {name: (len(values), float(f"{np.mean(values):.5g}")) for name, values in found.items()}


def test_the_version_counts_changes_of_features():
    found = features()

    assert FEATURES_VERSION in FEATURES, f"put the figures of the new version in: {found}"
    for name, (count, size) in found.items():
        assert FEATURES[FEATURES_VERSION].get(name) == (count, pytest.approx(size, rel=1e-3)), (
            f"{name} is measured otherwise than before: add 1 to FEATURES_VERSION in"
            " anomaly/models/verdicts.py, and put the new figures in here"
        )
