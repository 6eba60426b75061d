"""A day of ticks through Airflow, and a backfill of that day through Airflow: the same verdicts."""

import pytest

from anomaly.settings import load_settings
from deployment import QUARTER, at, counters, execute, insert, rows, train, verdicts
from integration_settings import SMALL

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

DAY = 96


@pytest.fixture
def settings(tmp_path):
    """Return the settings that the DAGs get, too."""
    return load_settings({}, models_url=str(tmp_path / "models"), **SMALL)


@pytest.fixture
def dag(airflow_metadata, database, settings, monkeypatch, project):
    """Parse a DAG as it runs against this database."""
    url = database.engine.url.set(drivername="postgres")
    monkeypatch.setenv("AIRFLOW_CONN_ANOMALY_DB", url.render_as_string(hide_password=False))
    monkeypatch.setenv("ANOMALY_MODELS_URL", settings.models.models_url)
    for name, value in SMALL.items():
        monkeypatch.setenv(f"ANOMALY_{name.upper()}", str(value))

    def parsed(name):
        from airflow.dag_processing.dagbag import DagBag

        bag = DagBag(project / "dags" / f"{name}.py")
        assert bag.import_errors == {}
        return bag.dags[name]

    return parsed


def test_a_day_of_ticks_and_a_backfill_write_the_same(dag, database, settings):
    insert(database, counters(10 * DAY))
    train(database, settings)
    ticks = dag("score_readings")
    for quarter in range(8 * DAY, 9 * DAY):
        ticks.test(logical_date=at(quarter), mark_success_pattern="check_freshness")
    live = verdicts(database)
    execute(database, "DELETE FROM anomaly.anomaly_results")

    backfill = dag("backfill_scores")
    end = max(moment for _, moment in live) + QUARTER
    run = backfill.test(
        run_conf={
            "start": at(0).isoformat(),  # the first tick looked for late readings, too
            "end": end.isoformat(),
            "preview_first": False,
        }
    )

    assert run.state == "success"
    assert end > at(9 * DAY - 2)
    assert len(live) == 2 * ((end - at(0)) // QUARTER)
    assert verdicts(database) == live
    origins = rows(database, "SELECT DISTINCT origin::text FROM anomaly.anomaly_results")
    assert origins == [("backfill",)]
