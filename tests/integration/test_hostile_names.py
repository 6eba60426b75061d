"""Names and texts that are SQL, markup, paths or terminal codes are nothing but names and texts."""

import json
import unicodedata
from urllib.parse import quote

import pytest
from api_server import environment, serving

from deployment import at, counters, execute, rows, score, train
from integration_settings import SMALL

HOSTILE = [
    "'; DROP TABLE anomaly.anomaly_results; --",
    '"; SELECT pg_sleep(60); --',
    "$$; DELETE FROM anomaly.machines; $$",
    "%s %(name)s {0} {machine} :machine",
    "\\'; \\x1b[31m \x1b]0;owned\x07",
    "<script>alert(1)</script> [red]&amp;",
    "../../../etc/passwd",
    "=HYPERLINK(1) | drop",
    "\uff4d\uff41chine\u202eenihcam",
    "Fan\nerror: forged\r\x1b[2J\x9b31m\x07\u2028\u2066\x85.",
]
FORGED = HOSTILE[-1]
DAYS = 3
SHOWING = [
    ["status"], ["doctor", "--no-airflow"], ["config"], ["machines", "list"], ["sites", "list"],
    ["sites", "prices"], ["keys", "list", "--all"], ["labels", "list", "--all"],
    ["alerts", "list"], ["alerts", "silences"], ["alerts", "test"], ["alerts", "send"],
    ["incidents", "--all"], ["incidents", "--all", "--csv"], ["incidents", "show", "1"],
    ["incidents", "--acknowledge", "1", "--by", FORGED], ["alerts", "preview", "1"],
    ["label", "--incident", "1", "real", "--note", FORGED, "--by", FORGED],
    ["labels", "remove", "1", "--by", FORGED], ["models", "list"], ["models", "show", "1"],
    ["machines", "list", "--csv"], ["machines", "remove", FORGED], ["metrics"],
    ["keys", "revoke", FORGED], ["keys", "revoke", FORGED],
]  # fmt: skip
"""Commands that show what is stored, or say it in a message."""


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def assert_steers_nothing(text: str, where: object) -> None:
    """No character steers who reads it, and no line is one that data have made."""
    lines = text.split("\n")
    kinds = {one: unicodedata.category(one) for line in lines for one in line}
    steering = [one for one, kind in kinds.items() if kind in ("Cc", "Cf", "Zl", "Zp")]
    assert not steering, (where, text)
    assert not [line for line in lines if line.startswith("error: forged")], (where, text)


def intact(database) -> bool:
    """Whether every table that a name wanted to be rid of is there, and has its rows."""
    return all(
        rows(database, f"SELECT count(*) > 0 FROM anomaly.{table}") == [(True,)]
        for table in ("anomaly_results", "machines", "model_versions", "scoring_runs")
    )


@pytest.fixture
def hostile_plant(database, settings):
    """A long meter table: schema, table, columns and machines have hostile names."""
    schema, table, when, machine, value = HOSTILE[:5]
    execute(database, f"CREATE SCHEMA {quoted(schema)}".replace(":", r"\:"))
    with database.engine.begin() as connection:
        raw = connection.connection.cursor()
        place = f"{quoted(schema)}.{quoted(table)}"
        raw.execute(
            f"CREATE TABLE {place} ({quoted(when)} timestamptz, {quoted(machine)} text,"
            f" {quoted(value)} float8)".replace("%", "%%"),
            (),
        )
        raw.execute(f"GRANT USAGE ON SCHEMA {quoted(schema)} TO anomaly_source")
        raw.execute(f"GRANT SELECT ON {place} TO anomaly_source")
        frame = counters(DAYS * 96, len(HOSTILE)).set_index("utc_timestamp")
        for name, column in zip(HOSTILE, frame.columns, strict=True):
            for moment, reading in frame[column].items():
                raw.execute(f"INSERT INTO {place} VALUES (%s, %s, %s)", (moment, name, reading))
    return settings.changed(
        source_schema=schema,
        source_table=table,
        source_timestamp_column=when,
        source_machine_column=machine,
        source_value_column=value,
        source_layout="long",
    )


def test_schema_table_columns_and_machines_may_have_any_name(database, hostile_plant):
    train(database, hostile_plant, DAYS * 96)
    score(database, hostile_plant, 0, DAYS * 96)

    found = rows(
        database,
        "SELECT m.source_key, count(*) FROM anomaly.anomaly_results JOIN anomaly.machines m"
        " USING (machine_id) GROUP BY 1",
    )
    assert dict(found) == dict.fromkeys(HOSTILE, DAYS * 96)
    assert intact(database)


def variables_of_scored(database, hostile_plant):
    """Score the plant; its settings, as the command line reads them."""
    train(database, hostile_plant, DAYS * 96)
    score(database, hostile_plant, 0, DAYS * 96)
    source = hostile_plant.meter_table.model_dump(mode="json", exclude={"source_machines"})
    variables = environment(database, hostile_plant, **SMALL, **source)
    return {name: value for name, value in variables.items() if value}


def test_every_command_and_call_takes_them_as_names(
    command_line, database, hostile_plant, tmp_path
):
    variables = variables_of_scored(database, hostile_plant)
    span = ["--start", f"{at(0):%Y-%m-%d}", "--end", f"{at(96):%Y-%m-%d}"]

    for name in HOSTILE:
        for arguments in (
            ["label", name, "maintenance", *span, "--note", name, "--by", name],
            ["machines", "set", name, "--site", name, "--name", f"{name} 2"],
            ["incidents", "--machine", f"{name} 2", "--all"],
            ["labels", "list", "--machine", f"{name} 2", "--csv"],
            ["alerts", "silence", "--machine", f"{name} 2", "--hours", "1", "--note", name],
            ["machines", "set", f"{name} 2", "--name", name],
            ["keys", "create", name],
            ["keys", "revoke", name],
            ["sites", "price", name, "--price", "1", "--currency", name, "--from", "2026-01-01"],
            ["sites", "shifts", name, name],
            ["alerts", "silence", "--site", name],
            ["machines", "remove", name],
            ["machines", "import", name],
            ["alerts", "templates", name.replace("/", "_")],
            ["ingest", name],
            ["dags", "copy", name.replace("/", "_")],
            ["backfill", *span, "--machines", name, "--dry-run"],
        ):
            said = command_line.run(arguments, variables, folder=tmp_path)
            assert said.returncode in (0, 1, 2), (arguments, said.stderr)
            assert "Traceback" not in said.stderr, (arguments, said.stderr)
            assert_steers_nothing(said.stdout + said.stderr, arguments)
    shown = command_line.run(["machines", "list", "--json"], variables, folder=tmp_path)
    assert {row["source_key"] for row in json.loads(shown.stdout)} == set(HOSTILE)
    notes = {note for (note,) in rows(database, "SELECT note FROM anomaly.labels")}
    assert notes == set(HOSTILE)
    assert intact(database)

    execute(database, "DELETE FROM anomaly.api_keys")
    with serving(variables, folder=tmp_path) as api:
        for name in HOSTILE:
            for call in ("verdicts", "incidents"):
                answer = api.client.get(f"/{call}", params={"machine": name, "limit": 3})
                assert answer.status_code == 200, answer.text
            for call, key in (("verdicts", "after"), ("machines", "after"), ("incidents", "state"),
                              ("verdicts", "start"), ("incidents", "kind")):  # fmt: skip
                answer = api.client.get(f"/{call}", params={key: name})
                assert answer.status_code == 422, (call, key, answer.text)
            body = {"label": "real", "machine": name, "start": "2026-03-02", "end": "2026-03-03"}
            assert api.client.post("/labels", json=body | {"note": name}).status_code == 201
            record = {"utc_timestamp": name, "machine_1": 1.0, name: 2.0}
            assert api.client.post("/predict_real_time", json=record).status_code == 422
            assert api.client.get("/" + quote(name, safe="")).status_code == 404
    assert intact(database)


def test_nothing_that_is_stored_steers_a_terminal_or_makes_a_line_of_its_own(
    command_line, database, hostile_plant, tmp_path
):
    variables = variables_of_scored(database, hostile_plant)
    route = {"name": "ops", "urls": ["json://127.0.0.1:9/x"], "sites": [FORGED]}
    variables["ANOMALY_ALERT_ROUTES"] = json.dumps([route])
    # What the commands would refuse may have been written by another program.
    execute(database, "UPDATE anomaly.machines SET site = :it", it=FORGED)
    execute(
        database,
        "INSERT INTO anomaly.api_keys (name, digest, created_by)"
        " VALUES (:it, repeat('0', 64), :it);"
        " INSERT INTO anomaly.energy_prices VALUES (:it, '2026-01-01', 1, 'EUR')",
        it=FORGED,
    )
    span = ["--start", f"{at(0):%Y-%m-%d}", "--end", f"{at(96):%Y-%m-%d}"]
    said = command_line.run(
        ["label", FORGED, "real", *span, "--note", FORGED, "--by", FORGED], variables, tmp_path
    )
    assert said.returncode == 0, said.stderr

    for arguments in SHOWING:
        said = command_line.run(arguments, variables, folder=tmp_path)
        assert "Traceback" not in said.stderr, (arguments, said.stderr)
        assert_steers_nothing(said.stdout + said.stderr, arguments)
    refused = json.dumps([route | {"name": FORGED, "kinds": [FORGED]}])
    said = command_line.run(["config"], variables | {"ANOMALY_ALERT_ROUTES": refused}, tmp_path)
    assert said.returncode == 1
    assert_steers_nothing(said.stdout + said.stderr, "a refused route")
    command_line.run(["metrics", "--output", "all.prom"], variables, folder=tmp_path)
    written = (tmp_path / "all.prom").read_text()
    assert r"Fan\\nerror: forged" in written
    assert_steers_nothing(written, "the file of metrics")


def test_a_file_and_its_columns_may_have_any_name(command_line, database, settings, tmp_path):
    for number, name in enumerate(HOSTILE):
        file = tmp_path / f"{name.replace('/', '_')}.csv"
        cell = '"' + name.replace('"', '""') + '"'
        file.write_text(f"utc_timestamp,machine_1,{cell}\n2026-03-0{number + 1}T00:00Z,1.5,2\n")
        said = command_line.run(
            ["ingest", str(file), "--ignore-unknown"], environment(database, settings), tmp_path
        )
        assert "Traceback" not in said.stderr, said.stderr
        assert "\x1b" not in said.stdout + said.stderr
        assert said.returncode in (0, 1), said.stderr
    ((loaded,),) = rows(database, "SELECT count(*) FROM anomaly.meter_readings")
    assert loaded > 0
