"""The wheel beside somebody's own Airflow, with the newest and the lowest versions it allows."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from anomaly.database.connection import Database
from anomaly.settings import load_settings
from deployment import at, counters, insert, own_log_in, rows
from integration_settings import SMALL

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PROJECT = Path(__file__).parents[2]
LOCKED = (PROJECT / "requirements.txt").read_text(encoding="utf-8")
AIRFLOW = next(
    line.split()[0] for line in LOCKED.splitlines() if line.startswith("apache-airflow==")
)
DAY = 96
OWN_DAG = """
from airflow.sdk import dag

@dag(dag_id="score_readings", schedule=None)
def own():
    pass

own()
"""
OWN_PLUGIN = """
from airflow.plugins_manager import AirflowPlugin

class Own(AirflowPlugin):
    name = "own"
"""


def uv(*arguments):
    """Run uv with pip's index, as the Makefile does."""
    pip = [sys.executable, "-m", "pip", "config", "get", "global.index-url"]
    index = subprocess.run(pip, capture_output=True, text=True, check=False).stdout.strip()
    environment = dict(os.environ) | ({"UV_DEFAULT_INDEX": index} if index else {})
    command = [str(Path(sys.executable).with_name("uv")), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=PROJECT,
        check=True,
        capture_output=True,
    )
    (file,) = folder.glob("*.whl")
    return file


class Home:
    """An Airflow of somebody else: its own DAG, plugin and .airflowignore."""

    def __init__(self, folder, wheel, resolution, url):
        self.folder, self.resolution, self.url = folder, resolution, url
        self.bin = folder / "venv" / "bin"
        uv("venv", "--quiet", "--python", sys.executable, str(folder / "venv"))
        uv(
            *("pip", "install", "--quiet", "--python", str(self.bin / "python")),
            *("--resolution", resolution, str(wheel), AIRFLOW),
        )
        self.dags, self.plugins = folder / "home" / "dags", folder / "home" / "plugins"
        self.dags.mkdir(parents=True)
        self.plugins.mkdir()
        (self.dags / "own.py").write_text(OWN_DAG)
        (self.dags / ".airflowignore").write_text("drafts/\n")
        (self.plugins / "own.py").write_text(OWN_PLUGIN)
        self.environment = {
            "PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(folder),
            "AIRFLOW_HOME": str(folder / "home"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
            "AIRFLOW_CONN_ANOMALY_DB": url.replace("postgresql+psycopg2", "postgres"),
        }
        config = {"database_url": url, "models_url": str(folder / "models"), **SMALL}
        (folder / "home" / "anomaly.toml").write_text(
            "".join(f"{name} = {json.dumps(value)}\n" for name, value in config.items())
        )
        self.airflow("db", "migrate")

    def run(self, *command, **environment):
        done = subprocess.run(
            [str(self.bin / command[0]), *command[1:]],
            cwd=self.folder,
            env=self.environment | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        return done

    def anomaly(self, *arguments, **environment):
        done = self.run("anomaly", *arguments, **environment)
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    def airflow(self, *arguments, **environment):
        done = self.run("airflow", *arguments, **environment)
        assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-3000:]
        return done.stdout

    def dag_ids(self, **environment):
        """Ids of all DAGs that Airflow reads, and what it cannot import."""
        code = (
            "import json; from airflow.dag_processing.bundles.manager import DagBundlesManager;"
            "from airflow.dag_processing.dagbag import BundleDagBag;"
            "m = DagBundlesManager(); m.sync_bundles_to_db();"
            "bags = [BundleDagBag(b.path, bundle_path=b.path, bundle_name=b.name)"
            " for b in m.get_all_dag_bundles()];"
            "print('FOUND' + json.dumps([sorted(d for bag in bags for d in bag.dags),"
            " [e for bag in bags for e in bag.import_errors.values()]]))"
        )
        done = self.run("python", "-c", code, **environment)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.split("FOUND")[1])


@pytest.fixture(params=["highest", "lowest-direct"])
def home(request, tmp_path, wheel, postgres):
    name = f"installed_{request.param.partition('-')[0]}"
    own_log_in(postgres, "installed_app", "s/cr@t")
    postgres.create_database(name, owner="installed_app")
    return Home(tmp_path, wheel, request.param, postgres.url(name, "installed_app", "s/cr@t"))


def test_one_wheel_one_connection_one_migration(home):
    url = json.loads(home.anomaly("config", "--json"))[0]["value"]
    assert "s/cr" not in url
    assert "s%2Fcr" not in url
    home.anomaly("migrate")
    database = Database(home.url, load_settings({}).database)
    insert(database, counters(9 * DAY))
    home.anomaly("train", "--promote")
    bundle = home.anomaly("dags", "bundle").strip().split("=", 1)
    ours = dict([bundle, ("ANOMALY_DAG_PREFIX", "meters_")])

    ids, errors = home.dag_ids(**ours)
    assert errors == []
    assert ids == sorted(
        ["score_readings"] + [f"meters_{path.stem}" for path in (PROJECT / "dags").glob("*.py")]
    )
    home.airflow("dags", "test", "meters_score_readings", at(8 * DAY).isoformat(), **ours)
    (scored,) = rows(database, "SELECT count(*), max(r.dag_id) FROM anomaly.anomaly_results v"
                     " JOIN anomaly.scoring_runs r USING (run_id)")  # fmt: skip
    assert scored[0] > 0
    assert scored[1] == "meters_score_readings"
    found = home.run("anomaly", "doctor", "--json")
    levels = {one["about"]: one["level"] for one in json.loads(found.stdout)}
    assert "error" not in levels.values(), found.stdout
    assert levels["Airflow"] == "good"
    plugins = home.airflow("plugins", "-o", "json")
    names = {one["name"] for one in json.loads(plugins[plugins.index("[") :])}
    assert {"own", "anomaly"} <= names

    database.dispose()
    if home.resolution == "highest":  # Airflow's part does not depend on our libraries
        copied_dag_files_work_in_a_sub_folder(home, ids)
        another_version_beside_it_is_refused(home)
        copied_folders_work_without_the_wheel(home)


def copied_dag_files_work_in_a_sub_folder(home, ids):
    """Nothing of theirs is touched."""
    home.anomaly("dags", "copy", str(home.dags / "meters"))
    home.anomaly("dags", "copy", str(home.dags / "meters"))
    assert home.dag_ids(ANOMALY_DAG_PREFIX="meters_") == [ids, []]
    assert (home.dags / ".airflowignore").read_text() == "drafts/\n"
    (home.dags / "meters" / "promote_model.py").write_text("# of an older version\n")
    refused = home.run("anomaly", "dags", "copy", str(home.dags / "meters"))
    assert "has another promote_model.py: nothing was copied" in refused.stderr
    home.anomaly("dags", "copy", str(home.dags / "meters"), "--replace")


def another_version_beside_it_is_refused(home):
    """An error with both names, not a mixture."""
    (home.plugins / ".airflowignore").write_text("anomaly/\n")
    (home.plugins / "anomaly").mkdir()
    (home.plugins / "anomaly" / "__init__.py").write_text('__version__ = "0.0.9"\n')
    _, errors = home.dag_ids(ANOMALY_DAG_PREFIX="meters_")
    assert errors
    assert all("two versions of the package anomaly are installed" in error for error in errors)


def copied_folders_work_without_the_wheel(home):
    """What the page says of copying: the package and two files, sql/ beside them, and two lines."""
    uv("pip", "uninstall", "--quiet", "--python", str(home.bin / "python"), "anomaly")
    for folder in (home.dags / "meters", home.plugins / "anomaly"):
        shutil.rmtree(folder)
    shutil.copytree(PROJECT / "dags", home.dags / "meters")
    shutil.copytree(PROJECT / "plugins" / "anomaly", home.plugins / "anomaly")
    for file in ("anomaly_plugin.py", "anomaly_wiring.py"):
        shutil.copy(PROJECT / "plugins" / file, home.plugins)
    shutil.copytree(PROJECT / "sql", home.folder / "home" / "sql")
    (home.plugins / ".airflowignore").write_text((PROJECT / "plugins/.airflowignore").read_text())
    prefix = {"ANOMALY_DAG_PREFIX": "meters_"}

    assert home.dag_ids(**prefix)[1] == []
    home.airflow("dags", "test", "meters_reconcile_scores", **prefix)
    done = home.run(
        "python", "-m", "anomaly.cli.app", "status", PYTHONPATH=str(home.plugins), **prefix
    )
    assert done.returncode == 3, done.stderr  # readings of long ago: something needs attention
    assert "needs attention" in done.stdout
