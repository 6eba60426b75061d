"""Metrics for Prometheus: true, whoever asks and whatever has died; cheap; never a traceback."""

import json
import logging
import re
import shutil
import subprocess
from dataclasses import replace
from datetime import timedelta

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from anomaly.operations.backfilling import Backfiller
from anomaly.operations.metrics import METRICS, read_metrics
from anomaly.operations.status import status
from anomaly.windows import Window
from command_line import ANOMALY
from deployment import (
    QUARTER,
    TESTS,
    at,
    change,
    counters,
    delete,
    execute,
    insert,
    rows,
    score,
    tick,
    train,
)

DAY = 96
END = 10 * DAY
NOW = at(END)


@pytest.fixture
def scored(database, settings):
    """Ten days of two machines, scored live to the end of the ninth."""
    insert(database, counters(END))
    execute(database, "UPDATE anomaly.meter_readings SET ingested_at = utc_timestamp")
    train(database, settings)
    score(database, settings, 0, 9 * DAY - 1)
    tick(database, settings, 9 * DAY)
    return database


def read(database, settings, now=NOW, machines=100):
    return read_metrics(database, settings, now, machines)


def value(readout, name, *labels):
    return readout.values.get(name, {}).get(tuple(map(str, labels)))


def test_metrics_tell_what_status_tells(scored, settings):
    delete(scored, END - DAY // 2, END)
    change(scored, 9 * DAY - 2, "machine_1 + 1")
    now = at(END - DAY // 4)

    readout, told = read(scored, settings, now), status(scored, settings, now)

    assert value(readout, "anomaly_up") == value(readout, "anomaly_source_up") == 1
    newest = value(readout, "anomaly_newest_reading_timestamp_seconds")
    assert newest == (told.newest_reading + QUARTER).timestamp()
    stale = now.timestamp() - newest > value(readout, "anomaly_stale_after_seconds")
    assert stale is told.stale is True
    assert value(readout, "anomaly_watermark_timestamp_seconds") == told.watermark.timestamp()
    assert value(readout, "anomaly_unscored_readings") == told.unscored == 2 * (DAY // 2)
    assert value(readout, "anomaly_outdated_verdicts") == told.outdated > 0
    assert value(readout, "anomaly_model_version") == told.model_version
    trained_to = value(readout, "anomaly_model_trained_to_timestamp_seconds")
    assert trained_to == told.model_trained_to.timestamp()
    open_now = sum(
        value(readout, "anomaly_incidents", severity, "open")
        for severity in ("notice", "warning", "critical")
    )
    assert open_now == len(told.incidents)
    for machine in told.machines:
        of = (machine.machine_id, machine.name)
        assert value(readout, "anomaly_machine_alerts_per_week", *of) == machine.alerts_a_week
        budget = machine.alert_budget if machine.alerts_a_week is not None else None
        assert value(readout, "anomaly_machine_alert_budget_per_week", *of) == budget
    assert value(readout, "anomaly_alert_budget_per_week") == 2, "of the two that were judged"
    assert readout.errors == []


def test_counters_are_the_ledgers_sums_and_survive_its_pruning(scored, settings):
    change(scored, 9 * DAY - 3, "machine_1 + 0.2")
    execute(
        scored,
        "UPDATE anomaly.meter_readings SET ingested_at = :now WHERE utc_timestamp = :t",
        now=NOW,
        t=at(9 * DAY - 3),
    )
    tick(scored, settings, 9 * DAY + 1)
    before = read(scored, settings)

    counted = {
        origin: value(before, "anomaly_readings_scored_total", origin)
        for origin in ("live", "late", "backfill")
    }
    assert counted["live"] + counted["backfill"] == 2 * (9 * DAY + 1)
    assert value(before, "anomaly_verdicts_repaired_total", "live") > 0

    execute(scored, "DELETE FROM anomaly.scoring_runs WHERE origin = 'backfill'")
    execute(scored, "DELETE FROM anomaly.scoring_runs WHERE origin = 'backfill'")

    after = read(scored, settings)
    for name in ("readings_scored", "verdicts_repaired", "verdicts_retracted"):
        name = f"anomaly_{name}_total"
        assert after.values[name] == before.values[name]


def test_the_share_of_abnormal_verdicts_is_that_of_scheduled_runs(scored, settings):
    execute(scored, "UPDATE anomaly.scoring_runs SET published_at = :at", at=NOW)
    ((judged, abnormal),) = rows(
        scored, "SELECT scored, anomalies FROM anomaly.scoring_runs WHERE origin = 'live'"
    )

    readout = read(scored, settings)

    assert value(readout, "anomaly_abnormal_verdicts_ratio") == abnormal / judged


def test_an_empty_deployment_has_no_made_up_figures(database, settings):
    readout = read(database, settings)

    assert value(readout, "anomaly_up") == 1
    assert value(readout, "anomaly_model_version") == 0
    for name in ("newest_reading_timestamp_seconds", "watermark_timestamp_seconds",
                 "model_trained_to_timestamp_seconds"):  # fmt: skip
        assert f"anomaly_{name}" not in readout.values
    assert "anomaly_unscored_readings" not in readout.values, "without a model none can be"


def test_progress_of_a_backfill_is_the_share_of_its_time(scored, settings):
    backfiller = Backfiller(scored, settings)
    request = backfiller.check(Window(at(0), at(8 * DAY)), mode="everything", due=NOW)
    request = replace(request, chunk=timedelta(days=2), piece=timedelta(days=1))
    number = backfiller.begin(request, TESTS, "test")
    chunks = backfiller.chunks(request)

    def share():
        (now,) = rows(scored, "SELECT clock_timestamp()")[0]
        return value(read(scored, settings, now), "anomaly_backfill_progress_ratio", number)

    shares = [share()]
    for chunk in chunks:
        backfiller.run(number, chunk, TESTS)
        shares.append(share())
    backfiller.report(number, is_finished=True)

    assert shares == [0, 0.25, 0.5, 0.75, 1]
    assert share() is None


def test_progress_in_a_fleet_counts_groups_of_machines(scored, settings):
    execute(scored, "DELETE FROM anomaly.machines WHERE machine_id = 5")
    execute(
        scored,
        "INSERT INTO anomaly.backfills (starts_at, ends_at, mode, chunk, piece, command)"
        " VALUES (:a, :b, 'changed', '1 day', '1 day', 'test')",
        a=at(0),
        b=at(4 * DAY),
    )
    execute(
        scored,
        "INSERT INTO anomaly.backfill_pieces"
        " SELECT backfill_id, :a, :b, 1, 3, 10 FROM anomaly.backfills",
        a=at(0),
        b=at(2 * DAY),
    )
    ((number, now),) = rows(scored, "SELECT backfill_id, clock_timestamp() FROM anomaly.backfills")

    readout = read(scored, settings, now)

    assert value(readout, "anomaly_backfill_progress_ratio", number) == 0.5 * 3 / 4
    assert value(readout, "anomaly_backfills_stopped") == 0, "it has put no version in force"


def test_a_backfill_that_stopped_with_its_version_in_force_is_told(scored, settings):
    execute(
        scored,
        "INSERT INTO anomaly.backfills (starts_at, ends_at, version, mode, chunk, piece, command,"
        " started_at) VALUES (:a, :b, 1, 'changed', '1 day', '1 day', 'test', :a)",
        a=at(0),
        b=at(4 * DAY),
    )

    readout = read(scored, settings)

    assert value(readout, "anomaly_backfills_stopped") == 1
    assert [*readout.values["anomaly_backfill_progress_ratio"].values()] == [0]


def test_a_large_fleet_has_no_metrics_per_machine(scored, settings):
    readout = read(scored, settings, machines=1)

    assert not any(name.startswith("anomaly_machine_") for name in readout.values)
    assert value(readout, "anomaly_machines") == 5, "columns of machines, two with readings"
    assert value(readout, "anomaly_alert_budget_per_week") == 2 * settings.training.alert_budget


def test_what_is_compared_is_bounded_whatever_the_fleet(scored, settings, monkeypatch):
    monkeypatch.setattr("anomaly.operations.metrics.COMPARED", 50)

    readout = read(scored, settings)

    assert value(readout, "anomaly_compared_seconds") == 10 * 900
    assert value(readout, "anomaly_unscored_readings") == 2 * 9, "the last interval is left out"


def test_a_meter_table_that_is_gone_costs_only_what_it_says(scored, settings):
    execute(scored, "ALTER TABLE anomaly.meter_readings RENAME TO elsewhere")

    readout = read(scored, settings)

    assert (value(readout, "anomaly_up"), value(readout, "anomaly_source_up")) == (1, 0)
    assert value(readout, "anomaly_watermark_timestamp_seconds") == at(9 * DAY).timestamp()
    (error,) = readout.errors
    assert "anomaly.meter_readings" in error


def test_a_database_that_lacks_migrations_is_not_up(database, settings):
    execute(database, "DELETE FROM anomaly.schema_migrations WHERE name >= '0009'")

    readout = read(database, settings)

    assert value(readout, "anomaly_up") == 0
    assert value(readout, "anomaly_migrations_missing") >= 6
    assert "run `anomaly migrate`" in readout.errors[0]


# The log ----------------------------------------------------------------------------


def test_a_published_window_is_logged_with_run_window_and_version(
    scored, settings, caplog, monkeypatch
):
    caplog.set_level("INFO", logger="anomaly.published")
    # Tests of the DAGs in this process may have sent it elsewhere.
    monkeypatch.setattr(logging.getLogger("anomaly.published"), "propagate", True)
    monkeypatch.setattr(logging.getLogger("anomaly.published"), "handlers", [])
    score(scored, settings, 0, DAY, dry_run=True)
    assert caplog.records == [], "a dry run publishes nothing"

    score(scored, settings, 0, DAY)

    (record,) = caplog.records
    ((run_id,),) = rows(scored, "SELECT max(run_id) FROM anomaly.scoring_runs")
    assert record.getMessage() == "window published"
    told = record.published
    assert (told["run_id"], told["model_versions"], told["origin"]) == (run_id, [1], "backfill")
    assert (told["window_start"], told["window_end"]) == (at(0).isoformat(), at(DAY).isoformat())
    assert (told["read"], told["inserted"], told["updated"]) == (2 * DAY, 0, 0)


def test_the_command_line_logs_windows_as_json_when_asked(
    command_line, scored, environment, settings
):
    environment = environment | {
        "ANOMALY_MODELS_URL": settings.models.models_url,
        "ANOMALY_DETECTOR": "prototype",
    }
    command = ["score", "--start", at(0).isoformat(), "--end", at(DAY).isoformat(), "--json"]

    quiet = command_line.run(command, environment)
    said = command_line.run(command, environment | {"ANOMALY_LOG_FORMAT": "json"})

    assert (quiet.returncode, quiet.stderr) == (0, "")
    (line,) = said.stderr.splitlines()
    told = json.loads(line)
    assert told["event"] == "window published"
    assert told["window_end"] == at(DAY).isoformat()
    assert told["command"] == "anomaly score"


# The command ------------------------------------------------------------------------


@pytest.fixture
def environment(database):
    return {
        "ANOMALY_DATABASE_URL": database.engine.url.render_as_string(hide_password=False),
        "PATH": str(ANOMALY.parent),
    }


@pytest.fixture
def down(environment):
    """The address of a server that is not there."""
    gone = re.sub(r"@.*/", "@127.0.0.1:1/", environment["ANOMALY_DATABASE_URL"])
    return environment | {"ANOMALY_DATABASE_URL": gone}


def families(text):
    return {family.name: family for family in text_string_to_metric_families(text)}


def test_the_command_prints_what_prometheus_reads(command_line, scored, environment):
    said = command_line.run(["metrics"], environment)

    assert said.returncode == 0, said.stderr
    found = families(said.stdout)
    assert found["anomaly_up"].samples[0].value == 1
    assert found["anomaly_readings_scored"].type == "counter"
    names = {metric.name.removesuffix("_total") for metric in METRICS}
    assert set(found) <= names
    per_week = {"anomaly_machine_alerts_per_week", "anomaly_machine_alert_budget_per_week"}
    assert names - set(found) - per_week == {  # the readings are of months ago
        "anomaly_abnormal_verdicts_ratio",
        "anomaly_backfill_progress_ratio",
        "anomaly_backfill_progress_timestamp_seconds",
    } - set(found)


@pytest.mark.skipif(not shutil.which("promtool"), reason="needs promtool (Debian's prometheus)")
def test_prometheus_has_nothing_to_say_against_the_names(command_line, scored, environment):
    text = command_line.run(["metrics"], environment).stdout

    said = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True
    )

    assert (said.returncode, said.stdout, said.stderr) == (0, "", "")


def test_a_database_that_is_down_is_a_metric_and_one_line(command_line, down):
    said = command_line.run(["metrics"], down)

    assert said.returncode == 1
    assert families(said.stdout)["anomaly_up"].samples[0].value == 0
    (line,) = said.stderr.splitlines()
    assert line.startswith("missing: cannot connect to")


def test_a_file_is_written_whole_or_not_at_all(command_line, environment, down, tmp_path):
    file = tmp_path / "anomaly.prom"

    written = command_line.run(["metrics", "--output", str(file)], environment)
    assert (written.returncode, written.stdout) == (0, "")
    assert "anomaly_up 1.0" in file.read_text()
    command_line.run(["metrics", "--output", str(file)], down)
    assert "anomaly_up 0.0" in file.read_text()
    assert [*tmp_path.iterdir()] == [file]

    refused = command_line.run(["metrics", "--output", str(tmp_path / "no" / "x.prom")], down)
    assert refused.returncode == 1
    assert "cannot be written" in refused.stderr


def test_json_has_every_value(command_line, scored, environment):
    said = command_line.run(["metrics", "--json"], environment)

    assert '"name": "anomaly_up"' in said.stdout
    assert '"origin": "late"' in said.stdout


def test_served_metrics_survive_the_database(scored, environment):
    server = subprocess.Popen(
        [ANOMALY, "metrics", "--serve", "--port", "0"],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        address = re.search(r"http://127\.0\.0\.1:\d+/metrics", server.stderr.readline())[0]
        first = httpx.get(address, timeout=30).text
        assert families(first)["anomaly_up"].samples[0].value == 1
        assert httpx.get(address, timeout=30).text == first, "kept for some seconds"
    finally:
        server.terminate()
        server.wait(timeout=30)


def test_what_is_served_is_read_again_when_it_is_no_longer_fresh(monkeypatch):
    from anomaly.cli import metrics
    from anomaly.operations.metrics import Readout

    now, taken, reads = [0.0], 2.0, []

    def read():
        reads.append(now[0])
        now[0] += taken
        return Readout()

    monkeypatch.setattr(metrics.time, "monotonic", lambda: now[0])
    cache = metrics._Cache(read)
    for moment in (0.0, 3.0, 19.0, 21.0):
        now[0] = max(now[0], moment)
        cache.get()

    assert reads == [0.0, 21.0], "what takes two seconds is read every twenty"


def test_a_port_that_is_taken_is_one_line(command_line, environment):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        said = command_line.run(["metrics", "--serve", "--port", port], environment)

    assert said.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in said.stderr
