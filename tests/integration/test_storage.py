"""The registry on a file system and on an S3 server, over HTTP on this machine."""

import boto3
import pytest
from moto.server import ThreadedMotoServer

from anomaly.errors import ArtefactError, SettingsError
from anomaly.lifecycle.training import Trainer
from anomaly.models.artefact_store import LocalStore, open_store
from anomaly.models.artefacts import Registry
from deployment import counters, insert, rows, score, train

DAY = 96
FILES = {"a.txt": b"one", "b.txt": b"two"}


@pytest.fixture(scope="module")
def s3_server():
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3_server, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    client = boto3.client("s3")
    client.create_bucket(Bucket="models")
    yield client
    for found in client.list_objects_v2(Bucket="models").get("Contents", []):
        client.delete_object(Bucket="models", Key=found["Key"])
    client.delete_bucket(Bucket="models")


@pytest.fixture(params=["file", "s3"])
def url(request, tmp_path):
    if request.param == "file":
        return f"file://{tmp_path}/models"
    request.getfixturevalue("bucket")
    return "s3://models/plant"


@pytest.fixture
def store(url):
    return open_store(url)


def test_a_folder_is_written_whole_and_read_back(store):
    store.write("family/v0001", FILES, "token")

    assert store.names("family/v0001") == set(FILES)
    assert {name: store.read("family/v0001", name) for name in FILES} == FILES
    assert store.folders("family") == {"v0001"}


def test_nothing_that_exists_is_replaced(store):
    store.write("family/v0001", FILES, "token")

    with pytest.raises(ArtefactError, match=r"v0001 is there already|cannot write below"):
        store.write("family/v0001", {"a.txt": b"three"}, "other")
    assert store.read("family/v0001", "a.txt") == b"one"


def test_removing_is_safe_to_repeat_and_leaves_the_neighbours(store):
    for folder in ("family/v0001", "family/v00012"):
        store.write(folder, FILES, folder[-4:])

    store.remove("family/v0001", "token")
    store.remove("family/v0001", "token")

    assert store.names("family/v0001") is None
    assert store.names("family/v00012") == set(FILES)


def test_a_version_is_trained_verified_and_scored_with(database, settings, url):
    settings = settings.changed(models_url=url)
    insert(database, counters(10 * DAY))

    assert train(database, settings) == 1
    assert score(database, settings, 0, DAY).scored == 2 * DAY


def test_a_changed_object_is_refused(database, settings, bucket):
    settings = settings.changed(models_url="s3://models/changed")
    insert(database, counters(10 * DAY))
    train(database, settings)
    key = "changed/isolation_forest/v0001/model.joblib"
    bucket.put_object(Bucket="models", Key=key, Body=b"boom")

    with pytest.raises(ArtefactError, match=r"s3://.*/v0001/model\.joblib was changed"):
        score(database, settings, 0, DAY)


def test_a_training_killed_between_two_objects_is_swept(database, settings, bucket, monkeypatch):
    settings = settings.changed(models_url="s3://models/plant")
    insert(database, counters(10 * DAY))
    trainer = Trainer(database, settings)
    put, written = trainer.registry.store._fs.pipe_file, []

    def killed(path, content):
        if written:
            raise KeyboardInterrupt
        written.append(path)
        put(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(trainer.registry.store._fs, "pipe_file", killed)
        with pytest.raises(KeyboardInterrupt):
            trainer.register(trainer.train(trainer.default_window()))
    assert len(bucket.list_objects_v2(Bucket="models")["Contents"]) == 1
    assert rows(database, "SELECT count(*) FROM anomaly.model_versions") == [(0,)]

    assert trainer.sweep() == ["isolation_forest/v0001"]
    assert "Contents" not in bucket.list_objects_v2(Bucket="models")


def test_what_cannot_be_swept_now_waits_and_the_training_stands(database, settings, monkeypatch):
    insert(database, counters(10 * DAY))

    def refuse(self, folder, token):
        raise ArtefactError("cannot reach it")

    with monkeypatch.context() as patch:
        patch.setattr("anomaly.lifecycle.training.register_version", lambda *a: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train(database, settings)
        patch.undo()
        patch.setattr(LocalStore, "remove", refuse)
        assert train(database, settings) == 2
    assert Trainer(database, settings).sweep() == ["isolation_forest/v0001"]


def test_a_bucket_that_is_not_there_is_named_in_one_line(database, settings, bucket):
    settings = settings.changed(models_url="s3://nowhere/plant")
    insert(database, counters(10 * DAY))

    with pytest.raises(ArtefactError, match="cannot reach s3://nowhere/plant") as caught:
        train(database, settings)
    assert len(str(caught.value).splitlines()) == 1


def test_only_a_failed_write_says_that_nothing_was_registered(bucket, monkeypatch):
    missing = open_store("s3://nowhere/plant")

    with pytest.raises(ArtefactError) as read:
        missing.read("family/v0001", "a.txt")
    with pytest.raises(ArtefactError) as removed:
        missing.remove("family/v0001", "token")
    monkeypatch.setattr(missing, "names", lambda folder: None)
    with pytest.raises(ArtefactError) as written:
        missing.write("family/v0001", FILES, "token")

    assert "nothing was registered" not in str(read.value)
    assert "nothing was registered" not in str(removed.value)
    assert str(written.value).endswith("the credentials; nothing was registered")


def test_the_registry_takes_paths_and_urls_and_refuses_others(tmp_path):
    assert isinstance(Registry(f"file://{tmp_path}").store, LocalStore)
    with pytest.raises(SettingsError, match="ANOMALY_MODELS_URL is 'https://x/y'"):
        Registry("https://x/y")
