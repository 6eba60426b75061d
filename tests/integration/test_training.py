"""Training and the registry: whole versions or none, and never a doubtful file."""

import json
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sqlalchemy.exc import IntegrityError

from anomaly.database.connection import TRAINER
from anomaly.detectors.signals.calibration import CAUTION
from anomaly.errors import ArtefactError, MachineError, TrainingError
from anomaly.lifecycle.reproduction import reproduce
from anomaly.lifecycle.training import Trainer, fit_model
from anomaly.models.artefacts import FORMAT, Artefact, Registry, pack_arrays, unpack_arrays
from anomaly.models.model import Model
from anomaly.models.verdicts import verdicts_on
from anomaly.settings import DetectorName
from anomaly.windows import Window
from deployment import START, at, counters, execute, insert, rows, score, train, verdicts

DAY = 96


@pytest.fixture
def filled(database):
    insert(database, counters(16 * DAY))
    return database


def registered(database, version):
    ((artefact, sha256),) = rows(
        database,
        "SELECT artefact, sha256 FROM anomaly.model_versions WHERE version = :version",
        version=version,
    )
    return Artefact(artefact, sha256)


def folder(settings, version=1):
    return Path(settings.models.models_url) / "isolation_forest" / f"v{version:04d}"


def test_a_version_is_registered_with_files_hashes_and_what_made_it(filled, settings):
    train(filled, settings)

    ((version, artefact, hashes, readings, parameters, libraries),) = rows(
        filled,
        "SELECT version, artefact, sha256, readings, parameters, library_versions"
        " FROM anomaly.model_versions",
    )
    assert (version, artefact, readings) == (1, "isolation_forest/v0001", 2 * 8 * DAY)
    assert sorted(hashes) == ["manifest.json", "model.joblib", "scoring.npz"]
    assert parameters["forest_trees"] == settings.training.forest_trees
    assert set(libraries) >= {"python", "scikit-learn", "numpy"}
    manifest = json.loads((folder(settings) / "manifest.json").read_text())
    assert manifest["trained_from"] == START.isoformat()


def test_the_default_window_leaves_the_newest_days_out(filled, settings):
    window = Trainer(filled, settings).default_window()

    assert window == Window(START, at(9 * DAY))


def test_too_little_history_trains_nothing_and_says_how_much_is_missing(database, settings):
    insert(database, counters(7 * DAY + 48))

    with pytest.raises(TrainingError, match=r"0\.5 days of readings .* wait for 0\.5 more days"):
        Trainer(database, settings).default_window()


SIGNALS = {"detector": DetectorName.SIGNALS, "training_min_days": 1.0}


@pytest.mark.parametrize("changed", [{}, SIGNALS])
def test_a_time_zone_that_is_none_stops_training_and_not_scoring(filled, settings, changed):
    settings = settings.changed(**changed)
    train(filled, settings)
    execute(filled, "UPDATE anomaly.machines SET time_zone = 'Europe/Berln' WHERE machine_id = 2")

    with pytest.raises(MachineError) as refused:
        train(filled, settings)

    assert str(refused.value) == (
        "machine 2 has the time zone 'Europe/Berln', which does not exist: run `anomaly"
        " machines set 2 --time-zone Europe/Berlin`"
    )
    assert score(filled, settings, 0, DAY).scored == 2 * DAY


@pytest.mark.parametrize("budget", ["NaN", "Infinity", "0", "1001"])
def test_an_alert_budget_that_is_none_is_refused_by_the_database(filled, settings, budget):
    train(filled, settings)

    with pytest.raises(IntegrityError, match="alert_budget"):
        execute(filled, f"UPDATE anomaly.machines SET alert_budget = '{budget}'")


def test_a_machine_s_own_alert_budget_sets_its_threshold(filled, settings):
    settings = settings.changed(**SIGNALS)
    before = train(filled, settings)
    execute(filled, "UPDATE anomaly.machines SET alert_budget = 20 WHERE machine_id = 2")
    after = train(filled, settings)

    one, other = (
        Registry(settings.models.models_url).load(registered(filled, v)) for v in (before, after)
    )
    assert one.detector.limit[0] == other.detector.limit[0]
    assert one.detector.limit[1] > other.detector.limit[1]


def test_alerts_that_were_really_raised_correct_the_limit_of_their_machine(filled, settings):
    settings = settings.changed(**SIGNALS)
    first = train(filled, settings)
    ((trained_to,),) = rows(filled, "SELECT trained_to FROM anomaly.model_versions")
    day = int((trained_to - START) / timedelta(days=1)) * DAY
    for quarter in range(day + 24, day + 96, 24):  # every six hours a leap of its power
        execute(
            filled,
            "UPDATE anomaly.meter_readings SET machine_1 = machine_1 + 10"
            " WHERE utc_timestamp >= :t",
            t=at(quarter),
        )
    score(filled, settings, day, day + 2 * DAY)
    alerts = dict(
        rows(
            filled,
            "SELECT machine_id, count(*) FROM anomaly.incidents WHERE kind = 'machine'"
            " AND started_at >= :t GROUP BY 1",
            t=trained_to,
        )
    )
    assert 1 in alerts

    caution = Trainer(filled, settings).learnt_caution()
    second = train(filled, settings)

    was, now = (
        Registry(settings.models.models_url).load(registered(filled, version)).detector
        for version in (first, second)
    )
    assert was.caution.tolist() == [CAUTION] * 3
    for machine in (1, 2):  # two days bear two sevenths of an incident
        assert (caution[machine] > CAUTION) == (machine in alerts)
        assert (now.limit > was.limit)[machine - 1] == (machine in alerts)
    assert now.caution.tolist() == [caution[1], caution[2], CAUTION]
    assert Trainer(filled, settings).learnt_caution() == caution  # no alert is counted twice
    assert reproduce(filled, settings, second).same


def test_the_same_readings_give_the_same_forest(filled, settings):
    train(filled, settings)
    train(filled, settings)
    score(filled, settings, 0, DAY)
    first = verdicts(filled)
    execute(filled, "UPDATE anomaly.model_in_force SET version = 3 - version")
    score(filled, settings, 0, DAY)

    assert {**verdicts(filled)[1, at(5)], "model_version": 0} == {
        **first[1, at(5)],
        "model_version": 0,
    }


def test_a_dead_machine_does_not_poison_the_others(filled, settings):
    execute(filled, "UPDATE anomaly.meter_readings SET machine_3 = 4147.494")

    train(filled, settings)
    report = score(filled, settings, 0, DAY)

    assert report.scored == 3 * DAY
    assert {row["quality"] for (machine, _), row in verdicts(filled).items() if machine == 3} == {
        "first",
        "ok",
    }


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (Path(self.path),)


def plant_bomb(settings, tmp_path):
    (folder(settings) / "model.joblib").write_bytes(pickle.dumps(Bomb(str(tmp_path / "boom"))))


def cut_short(settings, tmp_path):
    file = folder(settings) / "model.joblib"
    file.write_bytes(file.read_bytes()[:-1])


def add_file(settings, tmp_path):
    (folder(settings) / "extra.py").write_text("boom")


def remove_file(settings, tmp_path):
    (folder(settings) / "manifest.json").unlink()


def remove_folder(settings, tmp_path):
    folder(settings).rename(tmp_path / "gone")


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        (plant_bomb, "was changed: sha256"),
        (cut_short, "was changed: sha256"),
        (add_file, r"\(extra.py\)"),
        (remove_file, r"\(manifest.json\)"),
        (remove_folder, "is missing"),
    ],
)
def test_a_doubtful_file_is_refused_before_it_is_opened(
    filled, settings, tmp_path, tamper, message
):
    train(filled, settings)
    tamper(settings, tmp_path)

    with pytest.raises(ArtefactError, match=message):
        score(filled, settings, 0, DAY)
    assert not (tmp_path / "boom").exists()
    assert verdicts(filled) == {}


def unknown_format(settings, manifest):
    return manifest | {"format": FORMAT + 1}


def older_format(settings, manifest):
    return manifest | {"format": FORMAT - 1}


def unknown_detector(settings, manifest):
    return manifest | {"detector": "oracle"}


@pytest.mark.parametrize(
    ("rewrite", "message"),
    [
        (unknown_format, r"format 4, this version reads 3: .* train again"),
        (older_format, r"format 2, this version reads 3: .* train again"),
        (unknown_detector, "the detector 'oracle', which this version does not know"),
    ],
)
def test_what_another_version_wrote_is_refused(filled, settings, rewrite, message):
    train(filled, settings)
    file = folder(settings) / "manifest.json"
    file.write_text(json.dumps(rewrite(settings, json.loads(file.read_text()))))
    execute(
        filled,
        "UPDATE anomaly.model_versions SET sha256 = sha256 || jsonb_build_object("
        "'manifest.json', CAST(:hash AS text))",
        hash=sha256(file.read_bytes()).hexdigest(),
    )

    with pytest.raises(ArtefactError, match=message):
        score(filled, settings, 0, DAY)
    assert verdicts(filled) == {}


def test_another_scikit_learn_scores_but_does_not_open_the_pickle(filled, settings, monkeypatch):
    train(filled, settings)
    monkeypatch.setattr("anomaly.models.artefacts.library_version", lambda name: "0.1")

    assert score(filled, settings, 0, DAY).scored == 2 * DAY
    with pytest.raises(ArtefactError, match=r"here is 0\.1: install scikit-learn"):
        Registry(settings.models.models_url).load_estimator(registered(filled, 1))


def test_scoring_needs_no_forest_of_scikit_learn(filled, settings):
    """In a process of its own: no pickle is opened, and nothing that trains is imported."""
    train(filled, settings)
    code = f"""
import pickle, sys
def refuse(*arguments, **options): raise AssertionError("a pickle")
pickle.load = pickle.loads = pickle.Unpickler = refuse
from anomaly.database.connection import Database
from anomaly.settings import load_settings
from anomaly.scoring.scorer import Scorer
from anomaly.scoring.publishing import Job
from anomaly.windows import Window
from anomaly.database.results import Origin
from anomaly.database.scoring_runs import RequestedBy
settings = load_settings({{}}, models_url={settings.models.models_url!r})
database = Database({filled.engine.url.render_as_string(hide_password=False)!r}, settings.database)
window = Window.parse("2026-03-02", "2026-03-03")
print(Scorer(database, settings).score_range(window, Job(Origin.BACKFILL, RequestedBy("x"))).scored)
print([name for name in ("sklearn.ensemble", "sklearn.tree", "matplotlib") if name in sys.modules])
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert result.stdout.split() == [str(2 * DAY), "[]"]


@pytest.mark.parametrize("detector", ["prototype", "signals"])
def test_the_same_readings_settings_and_seed_give_the_same_bytes(filled, settings, detector):
    settings = settings.changed(detector=DetectorName(detector))
    hashes = {registered(filled, train(filled, settings)).sha256["scoring.npz"] for _ in range(2)}
    other = settings.changed(random_seed=1)

    assert len(hashes) == 1
    assert registered(filled, train(filled, other)).sha256["scoring.npz"] not in hashes


@pytest.mark.parametrize("detector", ["prototype", "signals"])
def test_a_model_read_back_judges_as_it_did_when_it_was_trained(filled, settings, detector):
    settings = settings.changed(detector=DetectorName(detector))
    trainer = Trainer(filled, settings)
    window = Window(START, at(8 * DAY))
    sound, _ = trainer._sound_readings(window, None)
    model, _ = fit_model(sound, trainer._machines(), {}, trainer.settings)

    again = unpack_arrays(pack_arrays(model.arrays()))
    read = Model.from_arrays(type(model.detector), again, "energy_kwh", 15)

    wanted = np.ones(len(sound), dtype=bool)
    pd.testing.assert_frame_equal(
        verdicts_on(sound, wanted, read, settings.meter),
        verdicts_on(sound, wanted, model, settings.meter),
        check_exact=True,
    )


def test_two_trainings_at_once_get_a_number_each(filled, settings):
    with ThreadPoolExecutor(2) as pool:
        versions = list(pool.map(lambda _: train(filled, settings), range(2)))

    assert sorted(versions) == [1, 2]
    assert rows(
        filled,
        "SELECT count(*) FROM anomaly.model_in_force"
        " WHERE superseded_at IS NULL AND effective_to IS NULL",
    ) == [(1,)]


def test_a_training_killed_before_its_commit_leaves_no_version(filled, settings, monkeypatch):
    def killed(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("anomaly.lifecycle.training.register_version", killed)
        with pytest.raises(KeyboardInterrupt):
            train(filled, settings)
    assert folder(settings).exists()
    assert rows(filled, "SELECT count(*) FROM anomaly.model_versions") == [(0,)]

    assert train(filled, settings) == 2
    assert not folder(settings).exists()  # swept
    assert rows(filled, "SELECT count(*) FROM anomaly.model_drafts") == [(0,)]
    assert score(filled, settings, 0, DAY).inserted == 2 * DAY


def test_what_is_half_written_is_swept_with_its_temporary_name(filled, settings, monkeypatch):
    def full(self, content):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(KeyboardInterrupt):
            train(filled, settings)
    family = folder(settings).parent
    assert [path.name.split("-")[0] for path in family.iterdir()] == [".writing"]

    assert Trainer(filled, settings).sweep() == ["isolation_forest/v0001"]
    assert list(family.iterdir()) == []


def test_a_training_in_progress_is_never_swept(filled, settings, monkeypatch):
    swept = []
    write = Registry.write

    def sweeping(self, *arguments):
        written = write(self, *arguments)
        swept.append(Trainer(filled, settings).sweep())
        return written

    monkeypatch.setattr(Registry, "write", sweeping)

    assert train(filled, settings) == 1
    assert swept == [[]]
    assert folder(settings).exists()


def test_a_folder_of_another_database_is_neither_taken_nor_swept(filled, settings):
    folder(settings).mkdir(parents=True)

    assert train(filled, settings) == 2
    assert folder(settings).exists()


def test_a_folder_that_cannot_be_written_is_named_and_nothing_is_registered(filled, settings):
    Path(settings.models.models_url).write_text("not a folder")

    with pytest.raises(ArtefactError, match="cannot write below"):
        train(filled, settings)
    assert rows(filled, "SELECT count(*) FROM anomaly.model_versions") == [(0,)]


def test_rolling_back_keeps_what_was_decided_on_record(filled, settings):
    from anomaly.database.model_in_force import put_in_force
    from anomaly.database.scoring_runs import lock_publishing

    train(filled, settings)
    score(filled, settings, 0, DAY)
    train(filled, settings)
    with filled.transaction(TRAINER) as transaction:
        lock_publishing(transaction)
        put_in_force(transaction, 1, at(DAY), None, by="me", reason="roll back")

    entries = rows(
        filled,
        "SELECT version, effective_to IS NULL, superseded_at IS NULL, reason"
        "  FROM anomaly.model_in_force ORDER BY entry_id",
    )
    assert [entry[0] for entry in entries if entry[2]] == [1, 1]
    assert (2, True, False, "trained") in entries
    assert entries[-1] == (1, True, True, "roll back")
