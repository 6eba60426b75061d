"""`anomaly dags`: Airflow keeps the bundles that it has."""

import json

import pytest
from typer.testing import CliRunner

from anomaly.cli.app import app
from anomaly.installation import bundled_folder, conflict

GIT = [{"name": "git", "classpath": "airflow.providers.git.bundles.git.GitDagBundle", "kwargs": {}}]


@pytest.fixture
def bundle(tmp_path, monkeypatch):
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    monkeypatch.delenv("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST", raising=False)

    def run(config="", **environment):
        (tmp_path / "airflow.cfg").write_text(config)
        done = CliRunner().invoke(app, ["dags", "bundle"], env=environment)
        if done.exception and not isinstance(done.exception, SystemExit):
            return str(done.exception)
        name, _, bundles = done.stdout.strip().partition("=")
        assert name == "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST"
        return [one["name"] for one in json.loads(bundles)]

    return run


def test_the_bundles_that_there_are_stay(bundle):
    listed = f"[dag_processor]\ndag_bundle_config_list = {json.dumps(GIT)}\n"

    assert bundle() == ["dags-folder", "anomaly"]
    assert bundle("[core]\nfernet_key = 100%\n") == ["dags-folder", "anomaly"]
    assert bundle(listed) == ["git", "anomaly"]
    named = {"AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(GIT)}
    assert bundle(**named) == ["git", "anomaly"]
    ours = json.dumps([*GIT, {"name": "anomaly", "kwargs": {"path": "/old"}}])
    assert bundle(f"[dag_processor]\ndag_bundle_config_list = {ours}\n") == ["git", "anomaly"]


def test_bundles_that_cannot_be_known_are_named(bundle):
    assert "it should be a JSON list" in bundle("[dag_processor]\ndag_bundle_config_list = x\n")
    assert "Airflow gets its bundles by dag_bundle_config_list_cmd" in bundle(
        "[dag_processor]\ndag_bundle_config_list_cmd = cat list\n"
    )


def test_another_version_beside_this_one_is_named_and_the_same_is_not(tmp_path):
    package = tmp_path / "anomaly"
    package.mkdir()
    (package / "__init__.py").write_text('__version__ = "0.0.9"\n')

    assert f"and 0.0.9 in {package}: remove one" in conflict([str(tmp_path)])
    assert conflict([str(bundled_folder("dags").parent / "plugins")]) == ""
