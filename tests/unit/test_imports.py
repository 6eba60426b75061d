"""Scoring starts quickly: it imports nothing that only training, people or the API need."""

import subprocess
import sys
from pathlib import Path

from meters import SETTINGS, machines, measured, shifts

from anomaly.detectors.base import Detector
from anomaly.detectors.prototype import PrototypeDetector, fit_forest
from anomaly.detectors.signals.training import train_signals
from anomaly.models.artefacts import artefact_files
from anomaly.models.drift import Reference
from anomaly.models.model import Model
from anomaly.readings.meter_faults import profile_machines

HEAVY = ("sklearn", "scipy", "joblib", "matplotlib", "fastapi", "airflow", "typer", "fsspec")
SCORE = f"""
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from anomaly.scoring.record_scoring import judge_records
from anomaly.models.verdicts import verdicts_on
from anomaly.database.connection import Database
from anomaly.database.migrations import check_migrated
from anomaly.models.artefacts import MANIFEST, Registry, Artefact
from anomaly.scoring.scorer import Scorer
from anomaly.settings import load_settings
from anomaly.windows import Window

settings = load_settings({{}})
for folder in sys.argv[1:]:
    files = sorted(Path(folder).iterdir())
    import hashlib
    hashes = {{file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}}
    place = Path(folder)
    version = f"{{place.parent.name}}/{{place.name}}"
    model = Registry(str(place.parents[1])).load(Artefact(version, hashes))
    records = [
        {{"utc_timestamp": f"2024-02-10 14:{{minute}}:00", "machine_1": 100.0 * minute}}
        for minute in (15, 30, 45)
    ]
    assert len(judge_records(records, model, settings.meter_table, settings.meter)) == 3
print(*(name for name in {HEAVY} if name in sys.modules))
"""


def model(detector: Detector, readings) -> Model:
    return Model(detector, profile_machines(readings), "energy_kwh", 15, Reference.of(readings))


def test_scoring_imports_no_scikit_learn_nor_anything_else_that_it_can_do_without(tmp_path):
    readings = measured({1: shifts(21)})
    pipeline = fit_forest(readings, SETTINGS.training)
    detectors = (
        PrototypeDetector.compile(pipeline, SETTINGS.meter),
        train_signals(readings, machines(1), SETTINGS.meter, SETTINGS.training).detector,
    )
    for detector in detectors:
        folder = tmp_path / detector.name / "v0001"
        folder.mkdir(parents=True)
        for name, content in artefact_files(model(detector, readings), pipeline, {}).items():
            (folder / name).write_bytes(content)

    found = subprocess.run(
        [sys.executable, "-c", SCORE, *(str(tmp_path / d.name / "v0001") for d in detectors)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(tmp_path),
    )

    assert (found.stdout.strip(), found.stderr) == ("", "")
