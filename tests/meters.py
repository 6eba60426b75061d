"""Measured readings of made-up machines, for tests of detectors."""

import numpy as np
import pandas as pd

from anomaly.readings.measuring import measure
from anomaly.readings.transformers import PowerDiff
from anomaly.settings import load_settings

SETTINGS = load_settings({})
MONDAY = pd.Timestamp("2017-03-06", tz="UTC")


def quarters(days):
    return pd.date_range(MONDAY, MONDAY + pd.Timedelta(days=days), freq="15min", inclusive="left")


def steady(days, kilowatts=9.0, seed=1):
    """A machine that draws about the same, with noise of a hundredth."""
    noise = np.random.default_rng(seed).standard_normal(len(quarters(days)))
    return kilowatts * (1 + 0.01 * noise)


def shifts(days, kilowatts=30.0, seed=2):
    """A machine that runs from 8 to 18 on working days, and idles else."""
    times = quarters(days)
    works = (times.hour >= 8) & (times.hour < 18) & (times.day_of_week < 5)
    noise = np.random.default_rng(seed).standard_normal(len(times))
    return np.where(works, kilowatts, 0.3) * (1 + 0.02 * noise)


def measured(power_by_machine):
    """Counters that count these powers, as scoring measures them."""
    frames = [
        pd.DataFrame(
            {
                "utc_timestamp": quarters(len(power) / 96),
                "machine_id": machine,
                "reading": np.round(np.cumsum(power) / 4, 3),
                "duplicate": False,
            }
        )
        for machine, power in power_by_machine.items()
    ]
    return measure_readings(pd.concat(frames, ignore_index=True))


def measure_readings(readings, settings=SETTINGS):
    meter = settings.meter
    diff = PowerDiff(meter.interval_minutes, meter.max_gap_days, meter.change_scale).transform(
        readings
    )
    machines = pd.DataFrame({"machine_id": readings["machine_id"].unique()})
    return measure(diff, machines.assign(max_power_kw=np.nan, rolls_over_at=np.nan), meter)


def machines(*ids, **columns):
    table = pd.DataFrame(
        {"time_zone": "UTC", "alert_budget": np.nan, "often_flat": False},
        index=pd.Index(ids, name="machine_id"),
    )
    return table.assign(**columns)


def odd_readings(seed):
    """Three days of two machines with gaps, freezes, resets and jumps at odd times."""
    random = np.random.default_rng(seed)
    frames = []
    for machine in (1, 2):
        gaps = random.choice(
            [15, 15, 15, 15, 15, 15, 7, 30, 120, 26 * 60], 300, p=[0.15] * 6 + [0.025] * 4
        )
        changes = random.choice(
            [0.0, 0.1, 2.3, 7.5, 400.0, -90.0], 300, p=[0.2, 0.2, 0.3, 0.2, 0.05, 0.05]
        )
        times = MONDAY + pd.to_timedelta(np.cumsum(gaps), unit="min")
        reading = 1000 + np.cumsum(changes)
        frames.append(
            pd.DataFrame(
                {
                    "utc_timestamp": times.astype("datetime64[us, UTC]"),
                    "machine_id": machine,
                    "reading": reading,
                    "duplicate": False,
                }
            )
        )
    return measure_readings(pd.concat(frames, ignore_index=True))
