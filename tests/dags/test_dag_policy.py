"""Rules that every DAG file keeps."""

import ast
import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from pathlib import Path

import pytest
from croniter import croniter

PROJECT = Path(__file__).parents[2]
DAG_FILES = sorted((PROJECT / "dags").glob("*.py"))
HEAVY = ("pandas", "numpy", "sklearn", "joblib", "sqlalchemy", "psycopg2", "scipy")


@pytest.fixture(scope="module")
def dags(airflow_metadata):
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(PROJECT / "dags")
    assert bag.import_errors == {}
    return bag.dags


def test_every_dag_file_holds_the_dag_of_its_name(dags):
    assert sorted(dags) == [path.stem for path in DAG_FILES]


def test_every_dag_has_a_runbook_tags_and_retries(dags):
    for dag in dags.values():
        assert "When it fails" in dag.doc_md, dag.dag_id
        assert "anomaly" in dag.tags, dag.dag_id
        assert any(task.retries > 0 for task in dag.tasks), dag.dag_id


def test_every_run_and_every_task_has_an_end_that_a_retry_fits_into(dags):
    for dag in dags.values():
        assert dag.dagrun_timeout, dag.dag_id
        for task in dag.tasks:
            assert task.retries > 0, task.task_id
            assert task.execution_timeout, task.task_id
            assert task.execution_timeout <= dag.dagrun_timeout, task.task_id


def test_the_end_of_a_scoring_run_scales_with_the_interval(monkeypatch, airflow_metadata):
    from airflow.dag_processing.dagbag import DagBag

    monkeypatch.setenv("ANOMALY_INTERVAL_MINUTES", "720")
    dag = DagBag(PROJECT / "dags" / "score_readings.py").dags["score_readings"]

    assert dag.dagrun_timeout == timedelta(hours=24)


def _period(dag):
    """Longest time between two ticks of a DAG's schedule; None without one."""
    timetable = getattr(dag.timetable, "timetable", dag.timetable)  # of assets or time: the time
    if not (expression := getattr(timetable, "expression", None)):
        return None
    ticks = list(islice(croniter(expression, datetime(2026, 1, 1), datetime), 100))
    return max(later - tick for tick, later in pairwise(ticks))


@pytest.mark.parametrize("minutes", [1, 15, 720, 1440])
def test_a_run_that_hangs_holds_up_those_behind_it_for_no_longer_than_four_periods_or_an_hour(
    monkeypatch, airflow_metadata, minutes
):
    """For scoring it is the period of the readings, where that is longer: less often is enough.

    Only one run of a DAG is there at once, so one whose worker was killed stops all behind it
    until it has timed out.
    """
    from airflow.dag_processing.dagbag import DagBag

    monkeypatch.setenv("ANOMALY_INTERVAL_MINUTES", str(minutes))
    found = DagBag(PROJECT / "dags").dags
    periods = {name: period for name, dag in found.items() if (period := _period(dag))}

    assert periods == {
        "score_readings": timedelta(minutes=15),
        "send_alerts": timedelta(minutes=5),
        "reconcile_scores": timedelta(days=1),
        "retrain_model": timedelta(weeks=1),
    }
    periods["score_readings"] = max(periods["score_readings"], timedelta(minutes=minutes))
    for name, period in periods.items():
        assert found[name].max_active_runs == 1
        assert found[name].dagrun_timeout <= max(4 * period, timedelta(hours=1)), name


def test_every_dag_starts_at_a_fixed_moment_in_utc_and_skips_the_past(dags):
    for dag in dags.values():
        assert dag.start_date.tzinfo is not None
        assert dag.start_date.utcoffset() == UTC.utcoffset(None)
        assert dag.catchup is False
        assert dag.max_active_runs == 1


def test_scheduled_dags_have_data_intervals_in_utc(dags):
    from airflow.sdk import CronDataIntervalTimetable

    for dag_id in ("score_readings", "reconcile_scores", "retrain_model"):
        timetable = dags[dag_id].timetable
        assert isinstance(timetable, CronDataIntervalTimetable), dag_id
        assert str(timetable.timezone) == "UTC"


def test_the_scoring_dag_refuses_backfill_runs(dags):
    allowed = {str(kind.value) for kind in dags["score_readings"].allowed_run_types}

    assert allowed == {"scheduled", "manual"}


def test_scoring_and_training_announce_assets(dags):
    outlets = {
        dag.dag_id: {outlet.name for task in dag.tasks for outlet in task.outlets}
        for dag in dags.values()
    }

    assert outlets == {
        "score_readings": {"anomaly_scores"},
        "backfill_scores": {"anomaly_scores", "anomaly_backfill_reports"},
        "reconcile_scores": {"anomaly_scores"},
        "retrain_model": {"anomaly_models"},
        "promote_model": {"anomaly_models"},
        "send_alerts": set(),
        "label_incident": set(),
    }


def test_a_forms_runbook_is_not_a_wall_of_text():
    for path in DAG_FILES:
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        assert docstring is not None
        assert len(docstring.splitlines()) < 45, path.name


def test_parsing_imports_nothing_heavy(record_property):
    """In a process of its own, as Airflow's DAG processor parses."""
    code = (
        "import json, sys, time, importlib; import airflow.sdk; began = time.perf_counter();"
        f"sys.path[:0] = [{str(PROJECT / 'dags')!r}, {str(PROJECT / 'plugins')!r}];"
        f"[importlib.import_module(name) for name in {[path.stem for path in DAG_FILES]!r}];"
        "print(json.dumps([time.perf_counter() - began,"
        f"[name for name in {HEAVY!r} if name in sys.modules]]))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    seconds, heavy = json.loads(result.stdout.splitlines()[-1])
    record_property("parse seconds of all DAGs", round(seconds, 2))

    before = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from airflow.sdk import *;"
            f"print([name for name in {HEAVY!r} if name in sys.modules])",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    airflows_own = ast.literal_eval(before.stdout.splitlines()[-1])
    assert [name for name in heavy if name not in airflows_own] == []


def test_a_task_reads_the_settings_once():
    """Each DAG file reads them when it is parsed; no task, and nothing it calls, does again."""
    plugins = PROJECT / "plugins"
    readers = {
        path.relative_to(plugins).parts[:2]
        for path in sorted(plugins.rglob("*.py"))
        if "load_settings(" in path.read_text()
    }
    # The plugin reads them for the API, in Airflow's API server.
    assert {parts[-1] for parts in readers} <= {"settings.py", "cli", "demo", "anomaly_plugin.py"}
    for path in [*DAG_FILES, PROJECT / "plugins" / "anomaly_wiring.py"]:
        tree = ast.parse(path.read_text())
        everywhere = [node for node in ast.walk(tree) if _loads_settings(node)]
        at_the_top = [node for node in tree.body if isinstance(node, ast.Assign)]
        assert len(everywhere) == sum(_loads_settings(node.value) for node in at_the_top), path
        assert len(everywhere) == (path.stem != "anomaly_wiring"), path


def _loads_settings(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and getattr(node.func, "id", "") == "load_settings"


def test_a_setting_that_is_wrong_stops_the_dag_with_its_name(monkeypatch, airflow_metadata):
    from airflow.dag_processing.dagbag import DagBag

    monkeypatch.setenv("ANOMALY_DAG_RETRIES", "many")
    bag = DagBag(PROJECT / "dags" / "score_readings.py")

    assert "ANOMALY_DAG_RETRIES is 'many'" in "".join(bag.import_errors.values())


def test_owner_pool_retries_and_failure_callback_are_settings(monkeypatch, airflow_metadata):
    from airflow.dag_processing.dagbag import DagBag

    monkeypatch.setenv("ANOMALY_DAG_OWNER", "plant team")
    monkeypatch.setenv("ANOMALY_DAG_POOL", "meters")
    monkeypatch.setenv("ANOMALY_DAG_RETRIES", "7")
    monkeypatch.setenv("ANOMALY_DAG_FAILURE_CALLBACK", "builtins.print")
    bag = DagBag(PROJECT / "dags" / "score_readings.py")
    task = bag.dags["score_readings"].get_task("score")

    assert (task.owner, task.pool, task.retries) == ("plant team", "meters", 7)
    assert task.on_failure_callback in (print, [print])


def test_a_deadline_is_there_if_there_is_something_to_call(monkeypatch, airflow_metadata, dags):
    from airflow.dag_processing.dagbag import DagBag
    from airflow.sdk import DeadlineReference

    assert not dags["score_readings"].deadline

    monkeypatch.setenv("ANOMALY_DAG_DEADLINE_CALLBACK", "asyncio.sleep")
    monkeypatch.setenv("ANOMALY_DAG_DEADLINE_MINUTES", "20")
    bag = DagBag(PROJECT / "dags")

    (deadline,) = bag.dags["score_readings"].deadline
    assert deadline.interval == timedelta(minutes=15 + 20)
    assert deadline.reference == DeadlineReference.DAGRUN_LOGICAL_DATE
    assert type(deadline.callback).__name__ == "AsyncCallback", "a coroutine function"
    assert deadline.callback.path == "asyncio.sleep"
    assert not any(dag.deadline for name, dag in bag.dags.items() if name != "score_readings")

    monkeypatch.setenv("ANOMALY_DAG_DEADLINE_CALLBACK", "builtins.print")
    (deadline,) = DagBag(PROJECT / "dags").dags["score_readings"].deadline
    assert type(deadline.callback).__name__ == "SyncCallback"


def test_a_deadline_callback_that_does_not_exist_is_named(monkeypatch, airflow_metadata):
    from airflow.dag_processing.dagbag import DagBag

    monkeypatch.setenv("ANOMALY_DAG_DEADLINE_CALLBACK", "nowhere.page_me")
    bag = DagBag(PROJECT / "dags" / "score_readings.py")

    assert "ANOMALY_DAG_DEADLINE_CALLBACK is 'nowhere.page_me'" in "".join(
        bag.import_errors.values()
    )


def test_a_failure_callback_that_does_not_exist_is_named(monkeypatch, airflow_metadata):
    from airflow.dag_processing.dagbag import DagBag

    monkeypatch.setenv("ANOMALY_DAG_FAILURE_CALLBACK", "nowhere.page_me")
    bag = DagBag(PROJECT / "dags" / "score_readings.py")

    assert "ANOMALY_DAG_FAILURE_CALLBACK is 'nowhere.page_me'" in "".join(
        bag.import_errors.values()
    )


def test_the_plugin_scanner_executes_nothing_of_the_package():
    """Airflow executes every .py below plugins/ under its bare stem: `schema`, `windows`, ..."""
    code = (
        "import sys; from airflow.plugins_manager import ensure_plugins_loaded;"
        "ensure_plugins_loaded(); print(sorted(sys.modules))"
    )
    environment = {
        "PATH": str(Path(sys.executable).parent),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(PROJECT / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "sqlite:////tmp/none.db",
    }
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    loaded = set(ast.literal_eval(result.stdout.splitlines()[-1]))
    stems = {path.stem for path in (PROJECT / "plugins" / "anomaly").rglob("*.py")}

    assert "airflow.plugins_manager" in loaded
    assert stems & (loaded - {"__init__", "__main__"}) == set()


def ends_of(body):
    """What a task whose body runs in a deployment ends with."""
    from airflow.sdk.exceptions import AirflowException

    import anomaly_wiring
    from anomaly.settings import load_settings

    with pytest.raises(AirflowException) as caught, anomaly_wiring.deployment(load_settings()):
        body()
    return caught.value


def test_a_connection_that_is_missing_fails_at_once_with_the_command_that_adds_it(
    monkeypatch, airflow_metadata, capsys
):
    from airflow.sdk.exceptions import AirflowFailException

    monkeypatch.delenv("AIRFLOW_CONN_ANOMALY_DB", raising=False)

    error = ends_of(lambda: None)

    assert isinstance(error, AirflowFailException)
    assert "there is no Airflow connection 'anomaly_db': add it by `airflow connections" in str(
        error
    )
    assert capsys.readouterr().out.startswith("error: there is no Airflow connection")


def test_what_no_retry_mends_fails_a_task_at_once_and_what_one_may_is_retried(
    monkeypatch, airflow_metadata, database
):
    import psycopg2
    from airflow.sdk.exceptions import AirflowFailException
    from psycopg2 import errors as pg
    from sqlalchemy.exc import OperationalError

    from anomaly.errors import StaleAttemptError, WindowError

    url = database.engine.url.set(drivername="postgres").render_as_string(hide_password=False)
    monkeypatch.setenv("AIRFLOW_CONN_ANOMALY_DB", url)
    monkeypatch.syspath_prepend(PROJECT / "plugins")
    lasting = [OverflowError("int too large"), pg.UndefinedTable("x"), WindowError("x"),
               pg.InsufficientPrivilege("x")]  # fmt: skip
    passing = [
        psycopg2.OperationalError("server closed"),
        psycopg2.InterfaceError("connection already closed"),
        OperationalError("SELECT", {}, pg.AdminShutdown("x")),
        pg.LockNotAvailable("x"),
        OSError(28, "No space left"),
        MemoryError(),
        StaleAttemptError("x"),
    ]

    def raising(error):
        def body():
            raise error

        return body

    for error in lasting + passing:
        ended = ends_of(raising(error))
        assert isinstance(ended, AirflowFailException) is (error in lasting), error
        assert len(str(ended).splitlines()) == 1
        assert ended.__suppress_context__, "no traceback of what is explained"


def test_what_data_say_makes_no_line_of_a_task_s_log_and_steers_nobody_who_reads_it(
    monkeypatch, airflow_metadata, database, capsys
):
    from anomaly.errors import MachineError

    url = database.engine.url.set(drivername="postgres").render_as_string(hide_password=False)
    monkeypatch.setenv("AIRFLOW_CONN_ANOMALY_DB", url)
    monkeypatch.syspath_prepend(PROJECT / "plugins")

    def body():
        raise MachineError("no machine 'Fan\nerror: forged\x1b[2J\u202e'")

    said = r"no machine 'Fan\nerror: forged\x1b[2J\u202e'"
    assert str(ends_of(body)) == said
    assert capsys.readouterr().out == f"error: {said}\n"


def test_a_database_that_lacks_a_migration_fails_a_task_at_once(
    monkeypatch, airflow_metadata, database
):
    from airflow.sdk.exceptions import AirflowFailException

    from deployment import execute

    url = database.engine.url.set(drivername="postgres").render_as_string(hide_password=False)
    monkeypatch.setenv("AIRFLOW_CONN_ANOMALY_DB", url)
    monkeypatch.syspath_prepend(PROJECT / "plugins")
    execute(database, "DELETE FROM anomaly.schema_migrations WHERE name LIKE '0009%'")

    ended = ends_of(lambda: None)

    assert isinstance(ended, AirflowFailException)
    assert "run `anomaly migrate`" in str(ended)


def test_no_dag_that_is_stored_or_rendered_holds_a_secret(monkeypatch, airflow_metadata):
    """Airflow keeps each DAG in its database, and shows the rendered templates of its tasks."""
    from airflow.dag_processing.dagbag import DagBag
    from airflow.serialization.serialized_objects import DagSerialization

    secrets = ("Pw-of-the-database", "Tk-of-a-webhook")
    monkeypatch.setenv("AIRFLOW_CONN_ANOMALY_DB", f"postgres://me:{secrets[0]}@host:5432/x")
    monkeypatch.setenv("ANOMALY_DATABASE_URL", f"postgresql://me:{secrets[0]}@host:5432/x")
    monkeypatch.setenv("ANOMALY_ALERT_ROUTES", f"json://localhost/{secrets[1]}")

    bag = DagBag(PROJECT / "dags")

    assert len(bag.dags) == len(DAG_FILES)
    assert any(task.on_failure_callback for dag in bag.dags.values() for task in dag.tasks)
    for dag in bag.dags.values():
        stored = json.dumps(DagSerialization.to_dict(dag), default=str)
        rendered = " ".join(
            str(getattr(task, field, "")) for task in dag.tasks for field in task.template_fields
        )
        for secret in secrets:
            assert secret not in stored + rendered, dag.dag_id
