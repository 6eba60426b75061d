"""Calls the size of the prototype's: records as lists of dicts, ours beside the prototype's shape.

The prototype makes a DataFrame of the records, sends it through its eight steps with
`fit_transform`, and asks scikit-learn's forest of 350 trees. Run as ``python -m
benchmarks.records ours|prototype FOLDER``, a process each, so that memory is its own.
"""

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from anomaly.readings.record import MACHINES, METERS, OTHER_METERS
from anomaly.settings import Settings, load_settings
from benchmarks.figures import Figure, in_a_process, memory, saying, seconds

SIZES = (1, 1_000, 10_000)
FASTER = 10
REPEATS = {1: 40, 1_000: 10, 10_000: 5}

_MODEL, _FOREST = "isolation_forest/v0001", "forest.joblib"
Record = dict[str, Any]


def measure() -> list[Figure]:
    """Time one call of each size, the middle of several, and compare memory."""
    with tempfile.TemporaryDirectory(prefix="anomaly-bench-") as name:
        with saying("training for calls with records"):
            train(Path(name))
        with saying("the prototype's shape"):
            theirs = in_a_process("benchmarks.records", "prototype", name)
        with saying("records judged"):
            ours = in_a_process("benchmarks.records", "ours", name)
    figures = []
    for size in map(str, SIZES):
        mine, base = ours[size] * 1e3, theirs[size] * 1e3
        baseline = f"the prototype's shape, {base:.1f} ms"
        title = f"{int(size):,} record{'' if size == '1' else 's'} judged"
        figures.append(Figure.at_least(title, mine, "ms", baseline, base, FASTER))
    resident, base = ours["megabytes"], theirs["megabytes"]
    text = f"the prototype's shape, {base:.0f} MB"
    return [
        *figures,
        Figure.at_most("records judged: memory", resident, "MB", text, base, None),
    ]


def make_records(count: int, seed: int = 5) -> list[Record]:
    """The prototype's 22-field record of every quarter-hour, as JSON would hold it."""
    random = np.random.default_rng(seed)
    stamps = pd.date_range("2024-02-10", periods=count, freq="15min")
    counters = random.gamma(9, 1, (count, len(METERS))).cumsum(axis=0).round(3)
    return [
        {"utc_timestamp": str(stamp), "cet_cest_timestamp": str(stamp + pd.Timedelta("1h"))}
        | dict(zip(METERS, row, strict=True))
        for stamp, row in zip(stamps, counters.tolist(), strict=True)
    ]


def train(folder: Path) -> None:
    """One forest in both shapes: scikit-learn's object, and our model's files."""
    import joblib

    from anomaly.detectors.prototype import PrototypeDetector, fit_forest
    from anomaly.models.artefacts import artefact_files
    from anomaly.models.drift import Reference
    from anomaly.models.model import Model
    from anomaly.readings.measuring import measure as measure_readings
    from anomaly.readings.meter_faults import profile_machines
    from anomaly.readings.transformers import build_pipeline

    settings = _settings()
    readings = build_pipeline(settings.meter_table, settings.meter)[:7].fit_transform(
        pd.DataFrame(make_records(4_000, seed=4))
    )
    limits = pd.DataFrame({"machine_id": readings["machine_id"].unique()})
    limits = limits.assign(max_power_kw=np.nan, rolls_over_at=np.nan)
    measured = measure_readings(readings, limits, settings.meter)
    pipeline = fit_forest(measured, settings.training)
    detector = PrototypeDetector.compile(pipeline, settings.meter)
    model = Model(detector, profile_machines(measured), "energy_kwh", 15, Reference.of(measured))
    (folder / _MODEL).mkdir(parents=True)
    for name, content in artefact_files(model, pipeline, {}).items():
        (folder / _MODEL / name).write_bytes(content)
    joblib.dump(pipeline[-1], folder / _FOREST)


def ours(folder: Path) -> Callable[[list[Record]], object]:
    """The library's call, on a model opened from its files."""
    import hashlib

    from anomaly.models.artefacts import Artefact, Registry
    from anomaly.scoring.record_scoring import judge_records

    files = (folder / _MODEL).iterdir()
    hashes = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    model = Registry(str(folder)).load(Artefact(_MODEL, hashes))
    settings = _settings()
    return lambda records: judge_records(records, model, settings.meter_table, settings.meter)


def prototype(folder: Path) -> Callable[[list[Record]], object]:
    """The prototype's way, step by step as its README tells it."""
    import joblib
    from sklearn.compose import ColumnTransformer
    from sklearn.preprocessing import OneHotEncoder

    forest = joblib.load(folder / _FOREST)
    machines = [[int(name.removeprefix("machine_")) for name in MACHINES]]
    columns = ColumnTransformer(
        [
            ("machine", OneHotEncoder(categories=machines, sparse_output=False), ["machine_id"]),
            ("rate", "passthrough", ["power_diff"]),
        ]
    )

    def predict(records: list[Record]) -> pd.DataFrame:
        wide = pd.DataFrame(records).drop(columns=["cet_cest_timestamp", *OTHER_METERS])
        wide["utc_timestamp"] = pd.to_datetime(wide["utc_timestamp"], utc=True)
        long = wide.melt(id_vars="utc_timestamp", var_name="machine", value_name="power").dropna()
        long["machine_id"] = long["machine"].str.extract(r"(\d+)", expand=False).astype(int)
        long = long.sort_values(["machine_id", "utc_timestamp"])
        long["power_diff"] = (long.groupby("machine_id")["power"].diff() / 0.25).fillna(0)
        found = forest.predict(columns.fit_transform(long))
        return long[["utc_timestamp", "machine_id"]].assign(anomaly=(found == -1).astype(int))

    return predict


def _settings() -> Settings:
    return load_settings({}, source_timezone="UTC")


def run(which: str, folder: str) -> None:
    """Print seconds a call by size, the middle of several, and the peak of resident memory."""
    judge = {"ours": ours, "prototype": prototype}[which](Path(folder))
    found: dict[str, float] = {}
    for size in SIZES:
        records = make_records(size)
        judge(records)
        found[str(size)] = float(
            np.median([seconds(lambda: judge(records)) for _ in range(REPEATS[size])])  # noqa: B023
        )
    print(json.dumps({**found, "megabytes": memory()}))


if __name__ == "__main__":
    run(*sys.argv[1:])
