"""Training and the registry: whole versions or none, and never a doubtful file."""

import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from anomaly.errors import ArtefactError, TrainingError
from anomaly.postgres.database import TRAINER
from anomaly.registry import Registry
from anomaly.training import Trainer
from anomaly.windows import Window
from deployment import START, at, counters, execute, insert, rows, score, train, verdicts

DAY = 96


@pytest.fixture
def filled(database):
    insert(database, counters(16 * DAY))
    return database


def folder(settings, version=1):
    return Path(settings.models_url) / "isolation_forest" / f"v{version:04d}"


def test_a_version_is_registered_with_files_hashes_and_what_made_it(filled, settings):
    train(filled, settings)

    ((version, artefact, sha256, readings, parameters, libraries),) = rows(
        filled,
        "SELECT version, artefact, sha256, readings, parameters, library_versions"
        " FROM anomaly.model_versions",
    )
    assert (version, artefact, readings) == (1, "isolation_forest/v0001", 2 * 8 * DAY)
    assert sorted(sha256) == ["manifest.json", "model.joblib"]
    assert parameters["forest_trees"] == settings.forest_trees
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


def test_a_model_of_another_scikit_learn_is_refused(filled, settings, monkeypatch):
    train(filled, settings)
    monkeypatch.setattr("anomaly.registry.library_version", lambda name: "0.1")

    with pytest.raises(ArtefactError, match=r"here is 0\.1: install scikit-learn"):
        score(filled, settings, 0, DAY)


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
        patch.setattr("anomaly.training.register_version", killed)
        with pytest.raises(KeyboardInterrupt):
            train(filled, settings)
    assert folder(settings).exists()
    assert rows(filled, "SELECT count(*) FROM anomaly.model_versions") == [(0,)]

    assert train(filled, settings) == 2  # what lies there is nobody's, and is not touched
    assert score(filled, settings, 0, DAY).inserted == 2 * DAY


def test_a_folder_that_cannot_be_written_is_named_and_nothing_is_registered(filled, settings):
    Path(settings.models_url).write_text("not a folder")

    with pytest.raises(ArtefactError, match="cannot write below"):
        train(filled, settings)
    assert rows(filled, "SELECT count(*) FROM anomaly.model_versions") == [(0,)]


def test_rolling_back_keeps_what_was_decided_on_record(filled, settings):
    from anomaly.postgres.versions import put_in_force

    train(filled, settings)
    score(filled, settings, 0, DAY)
    train(filled, settings)
    with filled.transaction(TRAINER) as transaction:
        transaction.rows("lock_publishing")
        put_in_force(transaction, 1, at(DAY), None, by="me", reason="roll back")

    entries = rows(
        filled,
        "SELECT version, effective_to IS NULL, superseded_at IS NULL, reason"
        "  FROM anomaly.model_in_force ORDER BY entry_id",
    )
    assert [entry[0] for entry in entries if entry[2]] == [1, 1]
    assert (2, True, False, "trained") in entries
    assert entries[-1] == (1, True, True, "roll back")


def test_the_registry_takes_a_file_url_and_refuses_others(tmp_path):
    from anomaly.errors import SettingsError

    assert Registry(f"file://{tmp_path}").root == tmp_path
    with pytest.raises(SettingsError, match="ANOMALY_MODELS_URL is 's3://bucket'"):
        Registry("s3://bucket")
