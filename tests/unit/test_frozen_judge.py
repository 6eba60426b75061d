"""The judge of detectors stays the same: fixed readings give the same faults and the same counts.

Figures of different days are comparable only while this holds. The digests are of what comes
out, so the code may be moved, renamed and rewritten. A change of a digest needs a commit of its
own that says why, and new figures in docs/.
"""

import hashlib

import numpy as np
import pandas as pd
import pytest

from anomaly.evaluation.alert_matching import match_alerts
from anomaly.evaluation.fault_injection import Injected, inject
from anomaly.evaluation.physical_faults import inject_physical
from anomaly.settings import load_settings
from anomaly.windows import Window

WEEKS = Window.parse("2017-05-01", "2017-05-15")
FROZEN = [
    # reading kind, seed, injected faults and readings, alerts matched to them
    ("energy_kwh", 0, "8394a473b67970e6", "1daaeeed09631f1d"),
    ("energy_kwh", 1, "41487f371d7e8bef", "d921e933b2dc3e25"),
    ("energy_kwh", 2, "110d58fb57c4ff7a", "15864ee30fc321b6"),
    ("energy_kwh", 3, "9619e1b290fea888", "d99d72a03996d07b"),
    ("power_w", 0, "175e58158b8477bf", "9859ae92c4f53981"),
    ("power_w", 1, "037e81e9a21f2bcf", "f18d3ecf05a7f41c"),
    ("power_w", 2, "e6059b77fd0b8bd2", "7b02a36d4817abf9"),
    ("power_w", 3, "ba3a9e15565a62fb", "326105981d2d9b6d"),
]

FROZEN_PHYSICAL = [
    # plant, reading kind, seed, injected faults and readings
    ("plant", "energy_kwh", 0, "c1477218e8ec4e77"),
    ("plant", "energy_kwh", 1, "bb189f4b9d4d44cc"),
    ("plant", "energy_kwh", 2, "bed06886e6a9112b"),
    ("plant", "energy_kwh", 3, "b4f8fbe6e78534bb"),
    ("plant", "energy_kwh", 4, "5fb434abef9abf02"),
    ("plant", "energy_kwh", 5, "6406a63fed1dfbc6"),
    ("plant", "power_w", 0, "ca6078b5d64c0ed1"),
    ("plant", "power_w", 1, "723381b0b1d9de21"),
    ("plant", "power_w", 2, "9ae43b9f1c5b8002"),
    ("plant", "power_w", 3, "6a42801c8560aa38"),
    ("plant", "power_w", 4, "4de901e5f83a98b4"),
    ("plant", "power_w", 5, "26cb526c759b0dfc"),
    ("bursting", "energy_kwh", 0, "f2afb9de4d690036"),
    ("bursting", "energy_kwh", 1, "4e584db9493d40fc"),
    ("bursting", "energy_kwh", 2, "84a6bc849cc860f8"),
    ("bursting", "energy_kwh", 3, "e4fc6cd8bc79bca0"),
    ("bursting", "energy_kwh", 4, "094c75bb171bf8ab"),
    ("bursting", "energy_kwh", 5, "26fe248b72f066b8"),
    ("bursting", "power_w", 0, "c28e9f87d1e0b460"),
    ("bursting", "power_w", 1, "50feac99e1cc668b"),
    ("bursting", "power_w", 2, "5bb484b435a0cdd3"),
    ("bursting", "power_w", 3, "0cc22d2f69dde0c9"),
    ("bursting", "power_w", 4, "90f7ab740cd1d381"),
    ("bursting", "power_w", 5, "3b1904a50ebeac40"),
]


def plant(kind: str) -> pd.DataFrame:
    """Ten weeks of three machines, by arithmetic alone: shifts, steady, a quiet Sunday."""
    stamps = pd.date_range("2017-03-06", "2017-05-20", freq="15min", tz="UTC", inclusive="left")
    n = np.arange(len(stamps))
    hour, day, wave = n / 4 % 24, n // 96 % 7, (n * 7919 % 97) / 97
    power = {
        1: np.where((hour >= 6) & (hour < 20) & (day < 5), 30 + 4 * wave, 0.3 + 0.1 * wave),
        2: 9 + wave,
        3: np.where(day < 6, 16 + 2 * np.sin(hour / 24 * 2 * np.pi), 4) + wave / 2,
    }
    return readings_of(stamps, power, kind)


def bursting_plant(kind: str) -> pd.DataFrame:
    """The same weeks of two more machines: bursts all day, and a smooth load that never stops."""
    stamps = pd.date_range("2017-03-06", "2017-05-20", freq="15min", tz="UTC", inclusive="left")
    n = np.arange(len(stamps))
    wave = (n * 7919 % 97) / 97
    power = {
        4: np.where((n + n // 96 * 3) % 8 < 2, 12 + 2 * wave, 0.5 + 0.1 * wave),
        5: 30 + 8 * np.sin(n / 96 * 2 * np.pi) + wave,
    }
    return readings_of(stamps, power, kind)


def readings_of(stamps: pd.DatetimeIndex, power: dict[int, np.ndarray], kind: str) -> pd.DataFrame:
    readings = {
        machine: np.cumsum(kw / 4).round(3) if kind == "energy_kwh" else (kw * 1000).round(0)
        for machine, kw in power.items()
    }
    return pd.concat(
        [
            pd.DataFrame({"utc_timestamp": stamps, "machine_id": machine, "reading": reading})
            for machine, reading in readings.items()
        ],
        ignore_index=True,
    )


def alarms_of(clean: pd.DataFrame, injected: Injected) -> pd.DataFrame:
    """Every third reading that an injected fault changed."""
    keys = ["utc_timestamp", "machine_id"]
    both = clean.merge(injected.readings, on=keys, how="left", suffixes=("", "_now"))
    changed = both[(both["reading_now"] - both["reading"]).abs().fillna(9) > 0.0005]
    return changed.iloc[1::3][["machine_id", "utc_timestamp"]]


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def as_text(table: pd.DataFrame) -> str:
    numbers = table.select_dtypes("number").columns
    return table.assign(**{name: table[name].round(6) for name in numbers}).to_csv(index=False)


def digest_of_faults(injected: Injected) -> str:
    events = "\n".join(
        f"{e.machine_id} {e.family} {e.magnitude} {e.start.isoformat()} {e.end.isoformat()}"
        for e in injected.events
    )
    return digest(f"{events}\n{as_text(injected.readings)}")


@pytest.mark.parametrize(("kind", "seed", "faults", "matched"), FROZEN)
def test_fixed_readings_give_the_same_faults_and_the_same_counts(kind, seed, faults, matched):
    clean = plant(kind)
    meter = load_settings({}, reading_kind=kind).meter

    injected = inject(clean, window=WEEKS, seed=seed, meter=meter, zone="Europe/Berlin")
    alarms = alarms_of(clean, injected)
    judged = match_alerts(alarms, injected.events, WEEKS, [1, 2, 3], meter.interval)

    assert digest_of_faults(injected) == faults
    tables = as_text(judged.events) + as_text(judged.incidents)
    assert digest(f"{tables}{judged.machine_weeks:.6f}") == matched


@pytest.mark.parametrize(("make", "kind", "seed", "faults"), FROZEN_PHYSICAL)
def test_fixed_readings_give_the_same_physical_faults(make, kind, seed, faults):
    meter = load_settings({}, reading_kind=kind).meter
    clean = {"plant": plant, "bursting": bursting_plant}[make](kind)

    injected = inject_physical(clean, window=WEEKS, seed=seed, meter=meter, zone="Europe/Berlin")

    assert digest_of_faults(injected) == faults
