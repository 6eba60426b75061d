"""An artefact names its signals, and one of other signals is refused rather than misread."""

import hashlib

import numpy as np
import pytest
from meters import SETTINGS, machines, measured, shifts, steady

from anomaly.detectors.prototype import PrototypeDetector, fit_forest
from anomaly.detectors.signals.signals import NAMES
from anomaly.detectors.signals.training import train_signals
from anomaly.errors import ArtefactError
from anomaly.models.artefacts import (
    SCORING,
    Artefact,
    Registry,
    artefact_files,
    pack_arrays,
    unpack_arrays,
)
from anomaly.models.drift import Reference
from anomaly.models.model import Model
from anomaly.readings.meter_faults import profile_machines

FOLDER = "isolation_forest/v0001"
SIGNALS = "detector/signals"


@pytest.fixture(scope="module")
def readings():
    return measured({1: shifts(14), 2: steady(14)})


@pytest.fixture(scope="module")
def signals_files(readings):
    detector = train_signals(readings, machines(1, 2), SETTINGS.meter, SETTINGS.training).detector
    return files_of(detector, readings)


def files_of(detector, readings):
    profiles = profile_machines(readings)
    model = Model(detector, profiles, "energy_kwh", 15, Reference.of(readings))
    return artefact_files(model, None, {})


def load(tmp_path, files, **changed):
    """Load an artefact some of whose arrays were changed; None: taken away."""
    arrays = unpack_arrays(files[SCORING]) | changed
    packed = pack_arrays({name: array for name, array in arrays.items() if array is not None})
    folder = tmp_path / FOLDER
    folder.mkdir(parents=True)
    hashes = {}
    for name, content in (files | {SCORING: packed}).items():
        (folder / name).write_bytes(content)
        hashes[name] = hashlib.sha256(content).hexdigest()
    return Registry(str(tmp_path)).load(Artefact(FOLDER, hashes))


def scores(model, readings):
    return model.detector.score(readings, np.ones(len(readings), dtype=bool)).score


def test_an_artefact_holds_the_names_of_its_signals_in_the_order_of_their_columns(signals_files):
    assert tuple(unpack_arrays(signals_files[SCORING])[SIGNALS].tolist()) == NAMES


def test_an_artefact_from_before_signals_were_named_is_refused_as_one_of_the_first_signals(
    tmp_path, signals_files
):
    with pytest.raises(ArtefactError, match=r"on the signals level_1h, .*: train a new version"):
        load(tmp_path, signals_files, **{SIGNALS: None})


@pytest.mark.parametrize(
    "others",
    [(NAMES[1], NAMES[0], *NAMES[2:]), (*NAMES, "ninth"), NAMES[:-1], (*NAMES[:-1], "other")],
    ids=["another order", "one more", "one less", "another signal"],
)
def test_an_artefact_of_other_signals_is_refused(tmp_path, signals_files, others):
    with pytest.raises(ArtefactError) as refused:
        load(tmp_path, signals_files, **{SIGNALS: np.array(others)})

    message = str(refused.value)
    assert message.startswith(f"{tmp_path}/{FOLDER}/{SCORING}: ")
    assert f"on the signals {', '.join(others)}, and" in message
    assert f"measures {', '.join(NAMES)}: train a new version" in message


def test_an_old_artefact_is_refused_by_a_product_that_measures_a_ninth_signal(
    tmp_path, signals_files, monkeypatch
):
    monkeypatch.setattr("anomaly.detectors.signals.detector.NAMES", (*NAMES, "ninth"))

    with pytest.raises(ArtefactError, match=f"{NAMES[-1]}, ninth: train a new version"):
        load(tmp_path, signals_files, **{SIGNALS: None})


def test_the_prototype_has_no_signals_to_name(tmp_path, readings):
    pipeline = fit_forest(readings, SETTINGS.training)
    files = files_of(PrototypeDetector.compile(pipeline, SETTINGS.meter), readings)

    model = load(tmp_path, files)

    assert SIGNALS not in unpack_arrays(files[SCORING])
    assert np.isfinite(scores(model, readings)).all()


def test_a_reference_is_compared_by_the_signals_that_it_names(readings):
    whole = Reference.of(readings)
    arrays = whole.arrays()
    turned = {
        "machine_ids": arrays["machine_ids"],
        "edges": arrays["edges"][:, ::-1],
        "counts": arrays["counts"][:, ::-1],
        "signals": arrays["signals"][::-1],
    }
    old = {name: array for name, array in arrays.items() if name != "signals"}

    drifts = [
        Reference.from_arrays(each).drift(readings).sort_values(["machine_id", "signal"])
        for each in (arrays, turned, old)
    ]

    assert drifts[0].values.tolist() == drifts[1].values.tolist() == drifts[2].values.tolist()
