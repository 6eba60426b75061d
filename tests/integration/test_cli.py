"""The command line, as a shell runs it."""

import json
import os
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from anomaly.cli.app import app
from anomaly.windows import floor_to_interval
from command_line import ANOMALY
from deployment import QUARTER, at, counters, counters_until, delete, execute, insert, rows
from integration_settings import SMALL

DAY = 96


@pytest.fixture
def environment(database, settings, tmp_path):
    """Return what a command needs to know of the test's database."""
    url = database.engine.url.render_as_string(hide_password=False)
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "ANOMALY_DATABASE_URL": url,
        "ANOMALY_MODELS_URL": settings.models.models_url,
        **{f"ANOMALY_{name.upper()}": str(value) for name, value in SMALL.items()},
    }


@pytest.fixture
def anomaly(command_line, environment):
    """Run a command against the test's database."""

    def run(*arguments: str, **changed: str) -> subprocess.CompletedProcess[str]:
        return command_line.run([*arguments], environment | changed)

    return run


def test_the_installed_script_is_the_same_command_line(anomaly, environment):
    for arguments in (("status",), ("score", "--start", "soon", "--end", "2026-03-03"), ("x",)):
        script = subprocess.run(
            [ANOMALY, *arguments], env=environment, capture_output=True, text=True, check=False
        )
        forked = anomaly(*arguments)
        assert (script.returncode, script.stderr) == (forked.returncode, forked.stderr)
        assert script.returncode in (1, 2, 3)


def test_from_a_csv_file_to_verdicts(anomaly, tmp_path, database):
    file = tmp_path / "readings.csv"
    counters(12 * DAY).to_csv(file, index=False)

    assert anomaly("migrate", "--json").returncode == 0
    loaded = json.loads(anomaly("ingest", str(file), "--json").stdout)
    trained = json.loads(anomaly("train", "--promote", "--json").stdout)
    scored = json.loads(
        anomaly("score", "--start", "2026-03-02", "--end", "2026-03-14", "--json").stdout
    )
    again = json.loads(
        anomaly("backfill", "--start", "2026-03-02", "--end", "2026-03-14", "--json").stdout
    )

    assert loaded["inserted"] == 12 * DAY
    assert (trained["version"], trained["promoted"]) == (1, True)
    assert {name: scored[name] for name in ("read", "scored", "inserted", "updated")} == {
        "read": 24 * DAY,
        "scored": 24 * DAY,
        "inserted": 24 * DAY,
        "updated": 0,
    }
    assert (again["unchanged"], again["retracted"], again["inserted"]) == (24 * DAY, 0, 0)
    assert rows(database, "SELECT count(*) FROM anomaly.anomaly_results") == [(24 * DAY,)]


def test_an_evaluation_of_what_is_not_there_says_so(anomaly, database):
    insert(database, counters(2 * DAY))

    stranger = anomaly("evaluate", "--machines", "1,99")
    silent = anomaly("evaluate", "--machines", "1,3")
    future = anomaly("evaluate", "--start", "2031-01-01", "--end", "2031-02-01")

    assert stranger.stderr.startswith(
        "error: no machine is called '99': write a name, or an id: 1, 2"
    )
    assert "there is no reading of machine 3 in [2026-03-02 00:00" in silent.stderr
    assert "there is no reading of a machine that moves in [2031-01-01 00:00" in future.stderr
    assert "there are readings in [2026-03-02" in future.stderr


def test_score_and_backfill_take_the_same_options_and_sign_the_ledger_as_themselves(
    anomaly, database
):
    insert(database, counters(12 * DAY))
    anomaly("train", "--promote")

    for command, *more in (("score",), ("backfill", "--mode", "everything")):
        options = ("--start", "2026-03-02", "--end", "2026-03-03", "--allow-retract", "--json")
        tried = json.loads(anomaly(command, *more, *options, "--dry-run").stdout)
        assert (tried["scored"], anomaly(command, *more, *options).returncode) == (2 * DAY, 0)

    ledger = rows(database, "SELECT command FROM anomaly.scoring_runs ORDER BY run_id")
    assert ledger == [("anomaly score",), ("anomaly backfill",)]


LONG = {
    "ANOMALY_SOURCE_SCHEMA": "plant",
    "ANOMALY_SOURCE_TABLE": "log",
    "ANOMALY_SOURCE_LAYOUT": "long",
    "ANOMALY_SOURCE_MACHINE_COLUMN": "machine",
    "ANOMALY_SOURCE_VALUE_COLUMN": "kwh",
    "ANOMALY_JUDGING_DAYS": "1",
}
KEYS = {
    "text": ("Press 1", "12", "s\u00e4ge"),
    "integer": (12, 2_000_000_000, 3),
    "uuid": tuple(f"00000000-0000-0000-0000-00000000000{n}" for n in (3, 1, 2)),
}
NEWCOMER = {"text": "Press 2", "integer": 77, "uuid": "00000000-0000-0000-0000-000000000009"}
NUMBERS = {"text": (13, 12, 14), "integer": (12, 13, 3), "uuid": (3, 1, 2)}
"""The machine ids that the keys get: an integer keeps its own where it is small enough."""


def make_long_table(database, kind):
    execute(
        database,
        f"CREATE SCHEMA plant; CREATE TABLE plant.log (machine {kind}, utc_timestamp timestamptz,"
        " kwh double precision, ingested_at timestamptz)",
    )


def test_a_table_that_may_not_be_read_yet_says_what_to_run(anomaly, database):
    make_long_table(database, "text")

    refused = anomaly("train", **LONG)

    assert refused.returncode == 1
    assert refused.stderr == (
        "error: the database refused: permission denied for schema plant: run `anomaly migrate`,"
        " which grants it or says who has to\n"
    )


@pytest.mark.parametrize("kind", KEYS)
def test_a_long_table_goes_through_every_command(kind, environment, database, tmp_path):
    make_long_table(database, kind)
    execute(
        database,
        "GRANT USAGE ON SCHEMA plant TO anomaly_source;"
        " GRANT SELECT ON plant.log TO anomaly_source",
    )
    wide = counters(4 * DAY, machines=3).set_axis(["utc_timestamp", *KEYS[kind]], axis="columns")
    frame = wide.melt("utc_timestamp", var_name="machine", value_name="kwh")
    file, correction, newcomer = (
        tmp_path / f"{name}.csv" for name in ("long", "correction", "newcomer")
    )
    frame.to_csv(file, index=False)
    corrected = frame.query("machine == @KEYS[@kind][0]").iloc[[-DAY]]
    corrected.assign(kwh=corrected["kwh"] + 0.5).to_csv(correction, index=False)
    frame.iloc[: 4 * DAY].assign(machine=NEWCOMER[kind]).to_csv(newcomer, index=False)
    days = ("--start", "2026-03-02", "--end", "2026-03-06")

    def run(*arguments):  # in this process: a shell's would take a second each
        done = CliRunner().invoke(app, [*arguments, "--json"], env=environment | LONG)
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    loaded = run("ingest", str(file))
    trained = run("train", "--promote")
    scored = run("score", *days)
    corrected_rows = run("ingest", str(correction))
    repaired = run("reconcile", *days)
    again = run("backfill", *days)

    assert (loaded["inserted"], corrected_rows["updated"]) == (12 * DAY, 1)
    assert (trained["machines"], trained["promoted"]) == (3, True)
    assert (scored["read"], scored["inserted"]) == (12 * DAY, 12 * DAY)
    assert (repaired["changed"], repaired["scores"]["updated"]) == (2, 2)  # and its successor
    assert (again["unchanged"], again["inserted"], again["updated"]) == (12 * DAY, 0, 0)
    numbers = rows(database, "SELECT source_key, machine_id FROM anomaly.machines")
    assert dict(numbers) == dict(zip(map(str, KEYS[kind]), NUMBERS[kind], strict=True))
    # The reading and the prototype's difference, of every row of the plant's table.
    assert rows(
        database,
        """
        SELECT count(*), count(DISTINCT machine_id) FROM anomaly.anomaly_results
          JOIN anomaly.machines USING (machine_id)
          JOIN (SELECT machine::text AS source_key, utc_timestamp, kwh, kwh - lag(kwh) OVER (
                       PARTITION BY machine ORDER BY utc_timestamp) AS used
                  FROM plant.log) AS log USING (source_key, utc_timestamp)
         WHERE reading = kwh AND abs(coalesce(4 * used, 0) - coalesce(power_kw, 0)) < 1e-9
        """,
    ) == [(12 * DAY, 3)]
    run("ingest", str(newcomer))
    assert run("score", *days)["inserted"] == 4 * DAY  # it is registered on the way


def test_models_and_status_speak_of_what_is_there(anomaly, database):
    insert(database, counters(12 * DAY))
    anomaly("train", "--promote")

    models = json.loads(anomaly("models", "list", "--json").stdout)
    status = anomaly("status", "--json")

    assert [(model["version"], model["in_force"]) for model in models] == [(1, True)]
    assert status.returncode == 3  # readings of March are stale by now
    found = json.loads(status.stdout)
    assert found["model_version"] == 1
    assert any("the newest reading is from 2026-03-13 23:45" in line for line in found["problems"])
    assert "needs attention" in anomaly("status").stdout


def test_reconcile_reports_what_it_repaired(anomaly, database):
    insert(database, counters(12 * DAY))
    anomaly("train", "--promote")
    anomaly("score", "--start", "2026-03-02", "--end", "2026-03-14")
    delete(database, 5 * DAY)

    report = json.loads(
        anomaly("reconcile", "--start", "2026-03-02", "--end", "2026-03-14", "--json").stdout
    )

    assert (report["deleted"], report["scores"]["retracted"]) == (2, 2)


def test_a_reconciliation_repairs_what_status_counts(anomaly, database):
    insert(database, counters_until(floor_to_interval(datetime.now(UTC), QUARTER), 20 * DAY))
    anomaly("train", "--promote")
    days = {"ANOMALY_RECONCILE_DAYS": "2"}

    counted = json.loads(anomaly("status", "--json", **days).stdout)
    found = json.loads(anomaly("reconcile", "--dry-run", "--json", **days).stdout)
    table = anomaly("reconcile", "--dry-run", **days).stdout
    anomaly("reconcile", **days)
    left = json.loads(anomaly("status", "--json", **days).stdout)

    assert 0 < counted["unscored"] <= found["missing"]
    assert "Would be scored again" in table
    assert re.search(r"missing\W+(\d+)", table)[1] == str(found["missing"])
    assert (left["unscored"], left["outdated"], left["without_reading"]) == (0, 0, 0)


def test_versions_are_promoted_rolled_back_and_looked_up(anomaly, database):
    insert(database, counters(20 * DAY))
    anomaly("train", "--promote")
    anomaly("score", "--start", "2026-03-02", "--end", "2026-03-04")
    again = json.loads(anomaly("train", "--promote", "--json").stdout)

    past = json.loads(
        anomaly(
            "models", "promote", "2", "--start", "2026-03-02", "--end", "2026-03-03", "--json"
        ).stdout
    )
    first_day = json.loads(anomaly("models", "list", "--on", "2026-03-02", "--json").stdout)
    back = json.loads(anomaly("models", "rollback", "--reason", "noisy", "--json").stdout)
    shown = json.loads(anomaly("models", "show", "2", "--json").stdout)

    assert (again["version"], again["promoted"]) == (2, True)
    assert again["judgement"]["champion_version"] == 1
    assert past["scores"]["scored"] == 2 * DAY
    assert first_day["version"] == 2
    assert (back["version"], back["replaced"]) == (1, 2)
    assert [entry["decision"] for entry in shown["in_force"]] == ["promotion", "range"]
    page = anomaly("models", "show", "2").stdout
    assert "# Model version 2" in page
    assert "The gate lets it replace version 1" in page


def test_versions_are_verified_and_reproduced(anomaly, database, settings):
    insert(database, counters(20 * DAY))
    anomaly("train", "--promote")

    sound = json.loads(anomaly("models", "verify", "--json").stdout)
    reproduced = json.loads(anomaly("models", "reproduce", "1", "--json").stdout)
    (Path(settings.models.models_url) / "isolation_forest/v0001/extra.py").write_text("boom")
    broken = anomaly("models", "verify")

    assert sound == [{"version": 1, "sound": True, "problem": ""}]
    assert reproduced["same"] is True
    assert (broken.returncode, broken.stdout) == (1, "")
    assert "version 1: " in broken.stderr
    assert "(extra.py)" in broken.stderr


def test_a_refused_version_is_registered_and_not_put_in_force(anomaly, database):
    insert(database, counters(20 * DAY))
    anomaly("train", "--promote")

    # Trained up to the newest reading: no day is left to compare them on.
    span = ["--start", at(0).isoformat(), "--end", at(20 * DAY).isoformat()]
    result = anomaly("train", "--promote", *span, "--json")

    assert result.returncode == 3
    report = json.loads(result.stdout)
    assert (report["version"], report["promoted"]) == (2, False)
    assert report["refused_in_a_row"] == 1
    assert "0.0 days of readings are there" in report["judgement"]["reasons"][0]
    plain = anomaly("train", *span)
    assert plain.returncode == 3  # also when nobody asked to promote it
    assert "version 3 registered, not in force" in plain.stdout
    assert "refused: 0.0 days of readings are there" in plain.stderr
    assert "a person must decide: 2 versions in a row were refused" in plain.stderr
    assert "anomaly models promote 3" in plain.stderr


@pytest.mark.parametrize(
    ("arguments", "changed", "message"),
    [
        (("score", "--start", "x", "--end", "2026-01-01"), {}, "'x' is not a date or time"),
        (("score", "--start", "2026-03-02", "--end", "2026-03-03"), {}, "anomaly train --promote"),
        (("score", "--start", "2999-01-01", "--end", "2999-01-02"), {}, "is not due yet"),
        (("train",), {}, "anomaly.meter_readings is empty"),
        (("status",), {"ANOMALY_DATABASE_URL": ""}, "ANOMALY_DATABASE_URL is not set"),
        (("status",), {"ANOMALY_DATABASE_URL": "mysql://x/y"}, "'mysql' is not Postgres"),
        (("status",), {"ANOMALY_DATABASE_URL": "postgres://x:y@127.0.0.1:1/z"}, "cannot connect"),
        (("status",), {"ANOMALY_READING_KIND": "joule"}, "ANOMALY_READING_KIND is 'joule'"),
        (("ingest", "nowhere.csv"), {}, "nowhere.csv"),
        (("models", "promote", "9"), {}, "there is no model version 9"),
        (("models", "promote", "9", "--end", "2026-03-03"), {}, "--end needs --start"),
        (("models", "rollback"), {}, "there is no earlier version to go back to"),
        (("models", "show", "9"), {}, "there is no model version 9"),
        (("models", "reproduce", "9"), {}, "there is no model version 9"),
        (("models", "list", "--on", "monday"), {}, "'monday' is not a date"),
        (("models", "list", "--on", "2026-03-02", "--csv"), {}, "--csv does not go with it"),
        (
            ("models", "verify"),
            {"ANOMALY_MODELS_URL": "ftp://x"},
            "ANOMALY_MODELS_URL is 'ftp://x'",
        ),
        (("train",), {"ANOMALY_PROMOTION": "perhaps"}, "ANOMALY_PROMOTION is 'perhaps'"),
    ],
)
def test_an_error_is_one_clear_line_and_a_non_zero_exit(anomaly, arguments, changed, message):
    result = anomaly(*arguments, **changed)

    assert result.returncode == 1
    assert result.stdout == ""
    assert message in result.stderr
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.strip().splitlines()) == 1


def test_an_unmigrated_database_says_what_to_run(anomaly, postgres, database):
    postgres.create_database("bare")

    result = anomaly("status", ANOMALY_DATABASE_URL=postgres.url("bare"))

    postgres.drop_database("bare")
    assert "run `anomaly migrate`" in result.stderr


def test_incidents_are_listed_labelled_and_taken_on(anomaly, database, settings):
    insert(database, counters(9 * DAY))
    execute(
        database,
        "UPDATE anomaly.meter_readings SET machine_1 = machine_1 + 10"
        " WHERE utc_timestamp >= '2026-03-10 23:45Z'",
    )
    anomaly("train", "--start", "2026-03-02", "--end", "2026-03-10", "--promote")
    anomaly("score", "--start", "2026-03-10T22:00Z", "--end", "2026-03-11")

    listed = json.loads(
        anomaly("incidents", "--machine", "1", "--json", ANOMALY_PRICE_PER_KWH="0.3").stdout
    )
    (newest, *_) = [row for row in listed if row["kind"] == "machine"]
    number = str(newest["incident_id"])
    taken = anomaly("incidents", "--acknowledge", number, "--by", "night shift", "--json")
    said = json.loads(
        anomaly(
            "label", "machine_1", "false_alarm", "--start", "2026-03-10T23:00Z",
            "--end", "2026-03-11", "--note", "a test run", "--json",
        ).stdout
    )  # fmt: skip
    closed = json.loads(anomaly("incidents", "--state", "closed", "--json").stdout)

    assert newest["state"] == "open"
    assert json.loads(taken.stdout)["state"] == "acknowledged"
    assert (said["machine_id"], said["incidents_changed"]) == (1, 1)
    assert newest["incident_id"] in [row["incident_id"] for row in closed]
    assert anomaly("incidents").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["incidents", "--acknowledge", "77"], "there is no incident 77"),
        (["incidents", "--state", "broken"], "--state is 'broken'"),
        (["evaluate", "--machines", "a"], "--machines is 'a'"),
        (["evaluate", "--budgets", "1,nan"], "--budgets is '1,nan': write numbers above 0, 1000"),
        (["evaluate", "--budgets", "inf"], "--budgets is 'inf'"),
        (["evaluate", "--picture", "x.txt"], "'x.txt' has no known ending: write one of .png,"),
        (["evaluate", "--scores", "."], "--scores is '.', a folder: write the name of a file"),
        (["evaluate", "--scores", "no/x.npz"], "--scores is 'no/x.npz': there is no folder no"),
        (["incidents", "--machine", "99999999999"], "no machine is called '99999999999': there"),
        (["incidents", "--start", "2026-03-02", "--end", "2026-03-01"], "is empty"),
        (["evaluate", "--start", "2026-03-02"], "--start and --end go together"),
        (["evaluate", "--labels", "lab.pumps"], "no table 'lab.pumps' that this log-in may see"),
        (["evaluate", "--labels", "none.csv"], "none.csv: No such file"),
        (["evaluate", "--sets", "none.toml"], "none.toml: No such file or directory"),
        (["evaluate", "--sets", "a.toml", "--labels", "b.csv"], "--sets cannot go with --labels"),
        (["evaluate", "--sets", "a.toml", "--machines", "1"], "--machines cannot go with --sets"),
        (["evaluate", "--replay", "--picture", "a.png"], "--picture cannot go with --replay"),
        (["evaluate", "--replay", "--seeds", "3"], "--seeds cannot go with --replay"),
        (["evaluate", "--replay", "--budgets", "3"], "--budgets cannot go with --replay"),
        (["evaluate", "--weeks", "3"], "--weeks goes with --sets"),
        (["evaluate", "--no-gate"], "--no-gate goes with --replay"),
        (["evaluate", "--replay", "--leave-out"], "--leave-out goes with --sets and without"),
        (["evaluate", "--replay"], "has no readings: load some first"),
        (["label", "press", "real", "--start", "2026-03-02", "--end", "2026-03-03"], "no machine"),
        (["label", "1", "real", "--start", "2026-03-03", "--end", "2026-03-02"], "is empty"),
    ],
)
def test_what_cannot_be_said_is_one_clear_line(anomaly, arguments, message):
    failed = anomaly(*arguments)

    assert failed.returncode == 1
    assert message in failed.stderr
    assert len(failed.stderr.strip().splitlines()) == 1
