"""When a deviation began, what it amounts to, how bad it is and how it is told."""

import re
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anomaly.incidents.episodes import Episode, Severity, find_episodes
from anomaly.incidents.onsets import LOOK_BACK, with_onsets
from anomaly.readings.quality import QUALITY_NAMES, Quality
from anomaly.settings import MeterSettings, load_settings

SETTINGS = load_settings({})
QUARTER = SETTINGS.meter.interval
START = datetime(2026, 3, 2, tzinfo=UTC)
HOURS = QUARTER / timedelta(hours=1)


def at(quarter: int) -> datetime:
    return START + quarter * QUARTER


def machine(power, usual, alarms, **columns) -> pd.DataFrame:
    """Verdicts on every quarter-hour of a machine; alarms are the numbers of their rows."""
    times = pd.DatetimeIndex([at(quarter) for quarter in range(len(power))]).as_unit("us")
    values = {
        "machine_id": 1,
        "utc_timestamp": times,
        "anomaly": np.isin(np.arange(len(power)), alarms).astype(int),
        "anomaly_score": np.where(np.isin(np.arange(len(power)), alarms), 0.6, 0.1),
        "threshold": 0.5,
        "reason": "odd",
        "quality": "ok",
        "power_kw": np.asarray(power, float),
        "expected_kw": np.broadcast_to(np.asarray(usual, float), len(power)),
    }
    return pd.DataFrame(values | columns)


def episodes(
    verdicts: pd.DataFrame, zone: str = "UTC", meter: MeterSettings = SETTINGS.meter
) -> list[Episode]:
    """The episodes of one machine, whole."""
    verdicts = verdicts.assign(previous_at=verdicts["utc_timestamp"].shift())
    newest = verdicts["utc_timestamp"].iloc[-1] + QUARTER
    found = find_episodes(verdicts, [], newest, meter, SETTINGS.incidents)
    about = [
        verdicts[
            (verdicts["utc_timestamp"] >= episode.started_at - LOOK_BACK)
            & (verdicts["utc_timestamp"] <= episode.last_at)
        ].assign(number=number)
        for number, episode in enumerate(found)
        if episode.kind == "machine"
    ]
    if not about:
        return found
    frame = pd.concat(about)
    frame["alarm"] = frame["anomaly"] == 1
    frame["sound"] = frame["quality"].isin(QUALITY_NAMES[: Quality.STUCK])
    return with_onsets(found, frame, {1: zone}, meter)


def lasting(first: int, told: int, last: int, kilowatts: float, usual: float = 10.0, **columns):
    """Six days of a machine that is off its usual from `first` to `last`, told at `told`."""
    power = np.full(6 * 96, usual)
    power[first : last + 1] += kilowatts
    return machine(power, usual, range(told, last + 1), **columns)


# Onset


@given(
    first=st.integers(200, 300),
    delay=st.integers(0, 90),
    more=st.integers(0, 40),
    kilowatts=st.floats(1, 1000) | st.floats(-1000, -1),
    noise=st.integers(0, 2**32 - 1),
)
def test_an_incident_begins_when_the_deviation_did_however_late_it_was_told(
    first, delay, more, kilowatts, noise
):
    verdicts = lasting(first, first + delay, first + delay + more, kilowatts)
    jitter = np.random.default_rng(noise).uniform(-0.2, 0.2, len(verdicts)) * kilowatts
    verdicts["power_kw"] += jitter

    (found,) = episodes(verdicts)

    assert (found.started_at, found.told_at) == (at(first), at(first + delay + 1))
    off = verdicts["power_kw"] - verdicts["expected_kw"]
    assert found.excess_kwh == pytest.approx(
        off[first : first + delay + more + 1].sum() * HOURS, abs=0.001
    )


def test_one_reading_that_falls_short_cuts_no_deviation_off():
    verdicts = lasting(200, 210, 212, 20)
    verdicts.loc[205, "power_kw"] = 10.0

    (found,) = episodes(verdicts)

    assert (found.started_at, found.excess_kwh) == (at(200), 60.0)


def test_a_deviation_that_was_over_for_hours_is_not_the_same():
    verdicts = lasting(200, 210, 212, 20)
    verdicts.loc[range(180, 184), "power_kw"] = 30.0

    (found,) = episodes(verdicts)

    assert found.started_at == at(200)


def test_an_onset_lies_no_farther_back_than_a_day():
    (found,) = episodes(lasting(100, 300, 310, 20))

    assert found.started_at == at(300) - LOOK_BACK + QUARTER  # whose interval lies within the day


def test_an_onset_is_looked_for_beyond_the_restart_of_a_count():
    verdicts = lasting(200, 210, 212, 20)
    verdicts.loc[205, ["quality", "power_kw"]] = ["first", np.nan]

    (found,) = episodes(verdicts, meter=load_settings({}, reading_kind="energy_kwh_today").meter)

    assert (found.started_at, found.excess_kwh) == (at(200), 60.0)  # all but its own interval


def test_energy_of_intervals_counts_for_its_own_interval_behind_a_gap():
    verdicts = lasting(200, 200, 212, 20).drop(range(203, 206)).reset_index(drop=True)
    counted = {
        kind: next(
            one.excess_kwh
            for one in episodes(verdicts, meter=load_settings({}, reading_kind=kind).meter)
            if one.kind == "machine"
        )
        for kind in ("power_w", "energy_kwh_per_interval")
    }

    assert counted == {"power_w": 65.0, "energy_kwh_per_interval": 50.0}


@pytest.mark.parametrize("quality", QUALITY_NAMES[Quality.STUCK :])
def test_an_onset_lies_behind_the_last_fault_of_the_meter(quality):
    verdicts = lasting(200, 210, 212, 20)
    verdicts.loc[205, ["quality", "power_kw"]] = [quality, 500.0]

    found = next(episode for episode in episodes(verdicts) if episode.kind == "machine")

    assert (found.started_at, found.excess_kwh) == (at(206), 35.0)


def test_an_onset_lies_behind_the_last_gap_and_the_reading_that_ends_it():
    verdicts = lasting(200, 210, 212, 20).drop(index=[203, 204])

    (found,) = episodes(verdicts)

    assert found.started_at == at(206)


def test_an_onset_lies_behind_the_last_alarm_of_an_earlier_incident():
    verdicts = lasting(200, 202, 220, 20)
    verdicts["anomaly"] = verdicts.index.isin([202, 203, 219, 220]).astype(int)

    earlier, later = episodes(verdicts)

    assert (earlier.started_at, earlier.last_at) == (at(200), at(203))
    assert (later.started_at, later.told_at) == (at(204), at(220))


def test_where_the_usual_is_not_known_an_incident_begins_with_its_first_alarm():
    (found,) = episodes(lasting(200, 210, 212, 20, expected_kw=np.nan))

    assert (found.started_at, found.excess_kwh, found.reason) == (at(210), None, "odd")


@given(seed=st.integers(0, 2**32 - 1), told=st.integers(150, 300))
def test_an_onset_stays_while_its_incident_grows(seed, told):
    power = np.random.default_rng(seed).normal(10, 5, 6 * 96)
    whole = machine(power, 10.0, range(told, told + 20))

    begun = [episodes(whole[: told + 1 + grown])[0].started_at for grown in range(0, 20, 3)]

    assert len(set(begun)) == 1


# Energy


@settings(deadline=None)  # a month of many incidents
@given(data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_the_incidents_of_a_month_hold_the_energy_of_their_intervals_once_each(data, seed):
    random = np.random.default_rng(seed)
    size = 30 * 96
    usual = random.uniform(0, 20, size)
    verdicts = machine(
        usual + random.choice([0.0, 0.5, 5.0, -5.0], size, p=[0.4, 0.2, 0.2, 0.2]),
        usual,
        np.flatnonzero(random.random(size) < data.draw(st.sampled_from([0.005, 0.05, 0.3]))),
        quality=random.choice(
            ["ok", "gap", "stuck", "reset", "impossible"], size, p=[0.96] + [0.01] * 4
        ),
    )  # fmt: skip
    verdicts.loc[verdicts["quality"].isin(QUALITY_NAMES[Quality.STUCK :]), "anomaly"] = 0
    verdicts = verdicts[random.random(size) > 0.02].reset_index(drop=True)
    times = verdicts["utc_timestamp"]
    sound = verdicts["quality"].isin(["ok", "gap"])
    energy = (verdicts["power_kw"] - verdicts["expected_kw"]) * (
        times.diff().dt.total_seconds() / 3600
    )

    found = [episode for episode in episodes(verdicts) if episode.kind == "machine"]

    inside = np.zeros(len(verdicts), dtype=int)
    for episode in found:
        inside += times.between(episode.started_at, episode.last_at).to_numpy()
    assert inside.max(initial=0) <= 1  # none twice
    assert (inside[verdicts["anomaly"] == 1] == 1).all()
    assert sum(episode.excess_kwh or 0 for episode in found) == pytest.approx(
        energy[(inside == 1) & sound].sum(), abs=0.0005 * len(found) + 1e-6
    )


def test_an_interval_longer_than_a_gap_may_be_has_no_energy():
    verdicts = lasting(200, 210, 210, 20)
    early = verdicts[:1].assign(utc_timestamp=at(0) - timedelta(days=30))

    (found,) = (
        episode
        for episode in episodes(pd.concat([early, verdicts[210:211]], ignore_index=True))
        if episode.kind == "machine"
    )

    assert (found.started_at, found.excess_kwh) == (at(210), None)


# Severity


@pytest.mark.parametrize(
    ("share", "hours", "score", "severity"),
    [
        (2.17, 6, 0.6, Severity.CRITICAL),  # three times as much for six hours
        (1.0, 6, 0.6, Severity.CRITICAL),
        (-1.0, 6, 0.6, Severity.CRITICAL),
        (1.0, 5.5, 0.6, Severity.WARNING),
        (0.25, 4, 0.6, Severity.WARNING),
        (0.25, 3.5, 0.6, Severity.NOTICE),
        (0.25, 3.5, 0.95, Severity.WARNING),
        (0.25, 3.5, 0.9999, Severity.CRITICAL),
        (0.02, 12, 0.9999, Severity.WARNING),  # however high its score
        (0.02, 12, 0.6, Severity.NOTICE),
    ],
)
def test_severity_follows_the_score_and_how_many_hours_of_its_draw_a_machine_is_off(
    share, hours, score, severity
):
    quarters = int(hours * 4)

    (found,) = episodes(
        lasting(200, 200, 199 + quarters, 10 * share, anomaly_score=score, expected_kw=10.0)
    )

    assert found.severity is severity


def test_what_a_machine_draws_at_rest_is_no_measure_of_how_bad_it_is():
    usual = np.where(np.arange(6 * 96) % 96 < 48, 40.0, 0.3)
    power = usual.copy()
    power[252:276] += 1.0  # three times as much for six hours, and a fortieth of its range

    (found,) = episodes(machine(power, usual, range(252, 276)))

    assert found.severity is Severity.NOTICE


def test_where_the_usual_is_not_known_four_hours_are_a_step_worse():
    short, long = (
        episodes(lasting(200, 200, 200 + quarters, 1, expected_kw=np.nan))[0].severity
        for quarters in (14, 15)
    )

    assert (short, long) == (Severity.NOTICE, Severity.WARNING)


# Reason


@given(
    usual=st.floats(0.1, 5000),
    times=st.floats(0, 8),
    first=st.integers(150, 400),
    delay=st.integers(0, 20),
    zone=st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kathmandu", "no such zone"]),
)
def test_every_number_of_a_reason_is_that_of_the_incident(usual, times, first, delay, zone):
    verdicts = lasting(first, first + delay, first + delay + 5, usual * (times - 1), usual)

    (found,) = episodes(verdicts, zone)

    measured, apart, unit, side, normal, hours, moment, worst = re.fullmatch(
        r"(\S+) kW, (\S+) (%|kW) (above|below) the usual (\S+) kW, on average over (\S+) h"
        r" from \w{3} (.{16}); most unusual: (.*)",
        found.reason,
    ).groups()
    lasted = found.last_at + QUARTER - found.started_at
    inside = verdicts[verdicts["utc_timestamp"].between(found.started_at, found.last_at)]
    assert float(measured) == pytest.approx(inside["power_kw"].mean(), rel=0.006, abs=0.0006)
    assert float(normal) == pytest.approx(usual, rel=0.006, abs=0.0006)
    assert side == ("above" if float(measured) >= float(normal) else "below")
    beyond = abs(float(measured) - float(normal))
    shown = beyond / float(normal) * 100 if unit == "%" else beyond
    assert float(apart) == pytest.approx(shown, rel=0.006, abs=0.51 if unit == "%" else 0.001)
    assert float(hours) == pytest.approx(lasted / timedelta(hours=1), abs=0.051)
    known_zone = "UTC" if zone == "no such zone" else zone
    local = pd.Timestamp(found.started_at).tz_convert(known_zone)
    assert (moment, worst) == (f"{local:%Y-%m-%d %H:%M}", "odd")
