"""However many days a training has, it calls few of its own readings abnormal."""

import numpy as np
import pandas as pd
import pytest
from meters import SETTINGS, machines, measured, shifts, steady

from anomaly.detectors.signals.training import train_signals
from anomaly.evaluation.our_detector import measured_readings
from anomaly.settings import load_settings

LONGEST = 36
MOST_ABNORMAL = 0.03
"""Of the training's readings of a machine: at a budget of an incident a week it is far less."""


def stops(days, seed=3):
    """A machine that works around the clock, and stands still for an hour or two now and then."""
    random = np.random.default_rng(seed)
    stands = np.repeat(random.random(days * 12) < 0.15, 8)[: days * 96]
    return np.where(stands, 0.2, 20.0) * (1 + 0.05 * random.standard_normal(days * 96))


def abnormal_shares(readings, days, settings=SETTINGS):
    """Share of the first days' readings that a training on them calls abnormal, per machine."""
    first = readings["utc_timestamp"].min()
    seen = readings[readings["utc_timestamp"] < first + pd.Timedelta(days=days)]
    seen = seen.reset_index(drop=True)
    known = machines(*seen["machine_id"].unique())
    detector = train_signals(seen, known, settings.meter, settings.training).detector
    anomaly = detector.score(seen, np.ones(len(seen), dtype=bool)).anomaly
    return pd.Series(anomaly).groupby(seen["machine_id"].to_numpy()).mean()


@pytest.fixture(scope="module")
def made_up():
    return measured({1: steady(LONGEST), 2: shifts(LONGEST), 3: stops(LONGEST)})


@pytest.mark.parametrize("days", range(7, LONGEST + 1))
def test_no_length_of_history_floods_made_up_machines(made_up, days):
    assert abnormal_shares(made_up, days).max() < MOST_ABNORMAL


def test_a_machine_with_less_history_than_its_fleet_floods_no_more_than_the_others(made_up):
    since = made_up["utc_timestamp"].max() - pd.Timedelta(days=18)
    young = (made_up["machine_id"] != 2) | (made_up["utc_timestamp"] > since)

    shares = abnormal_shares(made_up[young].reset_index(drop=True), LONGEST)

    assert shares.max() < MOST_ABNORMAL


@pytest.mark.parametrize("days", [14, 15, 17, 19, 21, 22])
def test_two_to_three_weeks_of_a_steel_works_flood_nobody(real_readings, days):
    readings, settings = real_readings["steel_2018_15min"]

    assert abnormal_shares(readings, days, settings).max() < MOST_ABNORMAL


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("plant", ["steel_2018_15min", "tetouan_2017_30min"])
@pytest.mark.parametrize("skipped", [0, 21])
def test_no_length_of_history_floods_real_machines(real_readings, plant, skipped):
    readings, settings = real_readings[plant]
    first = readings["utc_timestamp"].min() + pd.Timedelta(days=skipped)
    later = readings[readings["utc_timestamp"] >= first]

    found = {days: abnormal_shares(later, days, settings).max() for days in range(7, LONGEST + 1)}

    assert not {days: share for days, share in found.items() if share >= MOST_ABNORMAL}


@pytest.fixture(scope="module")
def real_readings(shared_data):
    """Measured readings of each real plant, and its settings."""
    half_hours = {"interval_minutes": 30}
    plants = {"steel_2018_15min": {}, "tetouan_2017_30min": half_hours}
    found = {}
    for name, more in plants.items():
        settings = load_settings({}, reading_kind="power_w", **more)
        table = pd.read_csv(shared_data / "plants" / f"{name}.csv")
        stamps = pd.to_datetime(table["utc_timestamp"], utc=True)
        long = table.assign(
            utc_timestamp=stamps, machine_id=pd.factorize(table["machine_id"])[0] + 1
        ).rename(columns={"power_w": "reading"})
        long = long[long["utc_timestamp"] < stamps.min() + pd.Timedelta(days=60)]
        long = long.sort_values(["machine_id", "utc_timestamp"], ignore_index=True)
        found[name] = measured_readings(long, settings.meter), settings
    return found
