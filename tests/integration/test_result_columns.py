"""The columns of a result are declared once: tables, functions and views agree with it by name."""

import pytest

from anomaly.database.results import COLUMNS, VERDICT_COLUMNS
from anomaly.readings.quality import QUALITY_NAMES
from anomaly.scoring.scorer import Scorer
from anomaly.windows import Window
from deployment import at, counters, execute, insert, rows, score, train

DAY = 96
TYPES = {
    "int2": "smallint",
    "int4": "integer",
    "int8": "bigint",
    "float8": "double precision",
    "timestamptz": "timestamp with time zone",
    "text": "text",
}
ENUMS = {"quality": "anomaly.reading_quality", "origin": "anomaly.run_origin"}
DECLARED = {c.name: ENUMS.get(c.name, TYPES[c.kind]) for c in COLUMNS}
HISTORY = {
    "superseded_at": "timestamp with time zone",
    "superseded_by": "bigint",
    "cause": "text",
}
OF_THE_VIEWS_OWN = {
    "machine", "site", "site_id", "local_time", "local_date", "date_key",
    "state", "open_incidents", "open_meter_faults",
}  # fmt: skip
NOT_FOR_BI = {"run_id"}  # the ledger's key says nothing to a reader of reports


def columns_of(database, relation: str) -> dict[str, str]:
    found = rows(
        database,
        "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute"
        " WHERE attrelid = CAST(:relation AS regclass) AND attnum > 0 AND NOT attisdropped",
        relation=relation,
    )
    return dict(found)


def test_the_results_table_has_the_columns_that_are_declared(database):
    assert columns_of(database, "anomaly.anomaly_results") == DECLARED


def test_the_history_has_them_and_what_became_of_them(database):
    assert columns_of(database, "anomaly.anomaly_results_history") == DECLARED | HISTORY


def test_results_as_of_a_moment_have_the_columns_that_are_declared(database):
    found = rows(
        database,
        "SELECT name, format_type(kind, NULL) FROM pg_proc p,"
        " unnest(p.proargnames, p.proallargtypes, p.proargmodes) AS a (name, kind, mode)"
        " WHERE p.oid = CAST('anomaly.anomaly_results_as_of(timestamptz)' AS regprocedure)"
        " AND mode = 't'",
    )

    assert dict(found) == DECLARED


@pytest.mark.parametrize("view", ["bi.verdicts", "bi.latest"])
def test_views_of_verdicts_show_every_column_of_a_result(database, view):
    shown = columns_of(database, view).keys()

    assert shown - OF_THE_VIEWS_OWN == DECLARED.keys() - NOT_FOR_BI


def test_the_view_of_anomalies_shows_all_but_what_is_the_same_in_each_row(database):
    shown = columns_of(database, "bi.anomalies").keys()

    assert shown - OF_THE_VIEWS_OWN == DECLARED.keys() - NOT_FOR_BI - {"anomaly"}


def test_a_verdict_is_made_of_columns_that_no_attempt_signs():
    signed = {"machine_id", "utc_timestamp", "origin", "run_id", "scored_at"}

    assert set(VERDICT_COLUMNS) == DECLARED.keys() - signed


def test_the_database_knows_every_quality_by_its_name(database):
    known = rows(database, "SELECT unnest(enum_range(NULL::anomaly.reading_quality))::text")

    assert {name for (name,) in known} == set(QUALITY_NAMES)


def test_a_quality_that_a_later_version_adds_anywhere_is_taken_for_no_other(database, settings):
    """A newer product may share the database; its word must not turn verdicts into others."""
    insert(database, counters(9 * DAY))
    train(database, settings, end=8 * DAY)
    score(database, settings, 0, DAY)
    execute(database, "ALTER TYPE anomaly.reading_quality ADD VALUE 'negative' BEFORE 'gap'")

    found = Scorer(database, settings).find_mismatches(Window(at(0), at(DAY)), register=False)
    again = score(database, settings, 0, DAY)

    assert (len(found.changed), again.unchanged, again.changed) == (0, 2 * DAY, 0)


def test_a_verdict_with_a_quality_that_is_not_known_is_judged_again(database, settings):
    insert(database, counters(9 * DAY))
    train(database, settings, end=8 * DAY)
    score(database, settings, 0, DAY)
    execute(database, "ALTER TYPE anomaly.reading_quality ADD VALUE 'negative'")
    execute(
        database,
        "UPDATE anomaly.anomaly_results SET quality = 'negative', anomaly_score = NULL"
        " WHERE machine_id = 1 AND utc_timestamp = :at",
        at=at(5),
    )

    found = Scorer(database, settings).find_mismatches(Window(at(0), at(DAY)), register=False)
    again = score(database, settings, 0, DAY)

    assert (len(found.changed), again.updated) == (1, 1)
