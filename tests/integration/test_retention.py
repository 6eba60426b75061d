"""Old rows are deleted by whole months, the newest of the ledger never, and scoring goes on."""

from datetime import UTC, datetime, timedelta

import pytest
from psycopg2 import errors as pg
from sqlalchemy.exc import DBAPIError

from anomaly.database.connection import SCORER
from anomaly.errors import SettingsError
from anomaly.operations import purging
from anomaly.operations.purging import Purged, purge
from deployment import at, counters, execute, insert, rows, score, train
from integration_settings import SMALL

DAY = 96
DAYS = 70


@pytest.fixture
def scored(database, settings):
    settings = settings.changed(**SMALL, reconcile_days=1)
    insert(database, counters(DAYS * DAY))
    train(database, settings)
    score(database, settings, 0, DAYS * DAY)
    return settings


def months(database):
    return [
        name
        for (name,) in rows(
            database,
            "SELECT DISTINCT to_char(utc_timestamp AT TIME ZONE 'UTC', 'YYYY-MM')"
            " FROM anomaly.anomaly_results ORDER BY 1",
        )
    ]


def test_whole_months_are_dropped_and_what_is_kept_stays(database, scored):
    before = months(database)
    as_of = at(DAYS * DAY)
    settings = scored.changed(keep_results_months=1)

    found = purge(database, settings.retention, as_of)

    first_kept = f"{settings.retention.oldest(1, as_of):%Y-%m}"
    assert months(database) == [month for month in before if month >= first_kept]
    assert found == Purged(months_of_results=len([m for m in before if m < first_kept]))
    assert found.months_of_results > 0
    assert purge(database, settings.retention, as_of) == Purged()


def test_a_dry_run_counts_and_deletes_nothing(database, scored):
    settings = scored.changed(keep_results_months=1)
    before = months(database)

    would = purge(database, settings.retention, at(DAYS * DAY), dry_run=True)

    assert months(database) == before
    assert would.months_of_results > 0
    assert purge(database, settings.retention, at(DAYS * DAY)) == would


def test_what_was_dropped_can_be_scored_again(database, scored):
    before = rows(database, "SELECT count(*) FROM anomaly.anomaly_results")
    purge(database, scored.changed(keep_results_months=1).retention, at(DAYS * DAY))

    score(database, scored, 0, DAYS * DAY)

    assert rows(database, "SELECT count(*) FROM anomaly.anomaly_results") == before


@pytest.mark.parametrize("function", ["drop_results_before", "delete_history_before",
                                      "delete_ledger_before"])  # fmt: skip
def test_what_is_young_cannot_be_deleted_by_anybody_who_may_only_score(database, scored, function):
    most = "" if function.startswith("drop") else ", 10"
    before = rows(database, "SELECT count(*) FROM anomaly.anomaly_results")

    with pytest.raises(DBAPIError, match="is less than four weeks ago"):
        rows(database, f"SELECT anomaly.{function}('infinity'{most})")

    assert rows(database, "SELECT count(*) FROM anomaly.anomaly_results") == before


def test_the_ledger_keeps_how_far_scoring_has_come(database, scored, monkeypatch):
    execute(
        database,
        "UPDATE anomaly.scoring_runs SET origin = 'live', published_at = '2001-01-01',"
        " ingested_through = window_end",
    )
    says = "SELECT max(window_end), max(ingested_through), max(written_to), max(readings_to)"
    before = rows(database, f"{says} FROM anomaly.scoring_runs")
    count = rows(database, "SELECT count(*) FROM anomaly.scoring_runs")[0][0]
    kept = scored.changed(keep_results_months=1, keep_history_months=1, keep_ledger_months=1)
    columns = (
        "machine_id, utc_timestamp, reading, quality, anomaly, origin, model_version, run_id,"
        " scored_at, threshold"
    )
    execute(
        database,
        f"INSERT INTO anomaly.anomaly_results_history ({columns}, superseded_at, superseded_by,"
        f" cause) SELECT {columns}, '2001-01-01', 1, 'rescored'"
        " FROM anomaly.anomaly_results LIMIT 7",
    )

    monkeypatch.setattr(purging, "AT_ONCE", 3)  # the seven in three transactions
    found = purge(database, kept.retention, datetime.now(UTC) - timedelta(days=1))

    assert rows(database, f"{says} FROM anomaly.scoring_runs") == before
    left = rows(database, "SELECT count(*) FROM anomaly.scoring_runs")[0][0]
    assert 0 < left < count
    assert (found.replaced_verdicts, found.ledger_rows) == (7, count - left)


def test_only_the_functions_may_delete(database, scored):
    with pytest.raises(DBAPIError) as refused, database.transaction(SCORER) as transaction:
        transaction._connection.exec_driver_sql("DELETE FROM anomaly.scoring_runs")

    assert isinstance(refused.value.orig, pg.InsufficientPrivilege)


def test_settings_that_contradict_each_other_are_refused(settings):
    with pytest.raises(SettingsError, match="they point to the ledger, keep it as long"):
        settings.changed(keep_ledger_months=3)
    with pytest.raises(SettingsError, match="would make the deleted verdicts again"):
        settings.changed(keep_results_months=1, reconcile_days=40)
    assert not settings.retention.deletes
