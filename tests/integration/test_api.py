"""The API as its callers use it: a process of ``anomaly serve``, asked by HTTP."""

import json
import math
import re
import socket
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest
from api_server import LEARNT, environment, plant, serving

from anomaly.database.connection import Database
from anomaly.readings.record import METERS, RECORD
from anomaly.settings import load_settings
from deployment import at, counters, execute, insert, rows, score, verdicts
from integration_settings import SMALL

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "api.md"
PROTOTYPE = Path(__file__).parents[3] / "shared" / "prototype" / "README.md"
RECORDED = {"utc_timestamp": f"{at(LEARNT):%Y-%m-%d %H:%M:%S}", "machine_1": 970.5}
BESIDE = {"anomaly_score", "reason", "quality", "model_version"}


@pytest.fixture(scope="module")
def served(postgres, migrated, tmp_path_factory):
    """A plant of five machines, and the API on it, with a key made after it was started."""
    settings = load_settings({}, models_url=str(tmp_path_factory.mktemp("models")), **SMALL)
    postgres.create_database("served", template=migrated)
    database = Database(postgres.url("served"), settings.database)
    plant(database, settings)
    variables = environment(database, settings, **SMALL, api_most_megabytes=1)
    with serving(variables, folder=tmp_path_factory.mktemp("work")) as api:
        api.database, api.settings, api.variables = database, settings, variables
        yield api
    database.dispose()
    postgres.drop_database("served")


def predict(served, body, call="predict_batch", **options):
    return served.client.post(f"/{call}", json=body, **options)


# The prototype's shapes ---------------------------------------------------------------


def test_a_record_is_answered_in_the_prototypes_shape_with_more_beside_it(served):
    answer = predict(served, RECORDED, "predict_real_time")

    assert answer.status_code == 200
    (row,) = answer.json()["prediction_result"]
    assert list(row)[:3] == ["utc_timestamp", "machine_id", "anomaly"]
    assert set(list(row)[3:]) == BESIDE
    assert row["utc_timestamp"] == "2026-03-10T00:00:00"
    assert (row["machine_id"], row["quality"], row["model_version"]) == (1, "ok", 1)


def test_rows_are_by_time_then_machine_and_null_and_nan_have_none(served):
    body = """[
        {"utc_timestamp": "2026-03-10 00:15:00", "machine_2": 1926.0, "machine_1": NaN},
        {"utc_timestamp": "2026-03-10 00:00:00", "machine_2": 1925.0, "machine_1": 970.5},
        {"utc_timestamp": "2026-03-10 00:30:00", "machine_2": null, "machine_1": 972.5}
    ]"""

    answer = served.client.post("/predict_batch", content=body)

    found = [
        (r["utc_timestamp"][11:16], r["machine_id"]) for r in answer.json()["prediction_result"]
    ]
    assert found == [("00:00", 1), ("00:00", 2), ("00:15", 2), ("00:30", 1)]


def test_what_the_api_says_is_what_the_scheduled_scoring_writes(database, settings, tmp_path):
    plant(database, settings)
    frame = counters(LEARNT + 4, 5).iloc[LEARNT:].reset_index(drop=True)
    frame.loc[2, "machine_3"] += 60.0
    sent = frame.assign(utc_timestamp=[f"{t:%Y-%m-%dT%H:%M:%SZ}" for t in frame["utc_timestamp"]])

    with serving(environment(database, settings, **SMALL), folder=tmp_path) as api:
        told = predict(api, sent.to_dict("records")).json()["prediction_result"]

    insert(database, frame)
    score(database, settings, LEARNT, LEARNT + 4)
    stored = verdicts(database)
    assert len(told) == 20
    assert {row["anomaly"] for row in told} == {0, 1}
    names = {"anomaly", *BESIDE}
    for row in told:
        moment = datetime.fromisoformat(f"{row['utc_timestamp']}+00:00")
        mine = stored[row["machine_id"], moment]
        assert {name: row[name] for name in names} == {name: mine[name] for name in names}


def test_the_strict_setting_leaves_the_prototypes_three_fields(served, tmp_path):
    variables = served.variables | {"ANOMALY_API_STRICT": "true", "ANOMALY_TIMESTAMP_LABEL": "end"}
    with serving(variables, folder=tmp_path) as strict:
        (row,) = predict(strict, RECORDED, "predict_real_time").json()["prediction_result"]

    # The time is as sent, whatever end of the interval it names.
    assert row == {
        "utc_timestamp": "2026-03-10T00:00:00",
        "machine_id": 1,
        "anomaly": row["anomaly"],
    }


def test_earlier_records_may_be_sent_along(served):
    earlier = [{"utc_timestamp": "2026-03-09 23:45:00", "machine_1": 970.0}]
    alone = predict(served, RECORDED | {"previous": []}, "predict_real_time").json()
    beside = predict(served, RECORDED | {"previous": earlier}, "predict_real_time").json()
    batch = predict(served, {"records": [RECORDED], "previous": earlier}).json()

    assert [r["quality"] for r in alone["prediction_result"]] == ["first"]
    assert [r["quality"] for r in beside["prediction_result"]] == ["ok"]
    assert batch == beside
    assert predict(served, []).json() == {"prediction_result": []}


# The prototype's README ---------------------------------------------------------------


@pytest.fixture(scope="session")
def examples():
    if not PROTOTYPE.is_file():
        pytest.skip("the prototype's README (../shared/prototype) is not on this machine")
    return re.findall(r"```(bash|python)\n(.*?)```", PROTOTYPE.read_text(encoding="utf-8"), re.S)


def test_every_request_of_the_prototypes_readme_works_unchanged(served, examples, tmp_path):
    commands = [text for kind, text in examples if kind == "bash" and "curl -X POST" in text]
    programs = [text for kind, text in examples if kind == "python" and "requests.post" in text]
    assert (len(commands), len(programs)) == (2, 1)
    for text in [*commands, *programs]:
        asked = text.replace("http://localhost:8000", served.address)
        run = ["bash", "-c", asked] if text in commands else [sys.executable, "-c", asked]

        said = subprocess.run(run, capture_output=True, text=True, check=True, cwd=tmp_path)

        found = json.loads(said.stdout)["prediction_result"]
        count = text.count('"utc_timestamp"')
        assert [row["machine_id"] for row in found] == [1, 2, 3, 4, 5] * count, said.stdout
        assert {row["anomaly"] for row in found} <= {0, 1}
        assert "2024-02-10T14:" in found[0]["utc_timestamp"]


def test_its_record_has_22_fields_and_each_may_be_a_text_or_left_out(served, examples):
    (body,) = {m for _, text in examples for m in re.findall(r"-d '(\{.*?\})'", text, re.S)}
    record = json.loads(body)
    assert (len(record), set(record)) == (22, set(RECORD))
    whole = predict(served, record, "predict_real_time").json()

    texts = {name: str(value) for name, value in record.items()}
    assert predict(served, texts, "predict_real_time").json() == whole
    for left_out in {"cet_cest_timestamp", *METERS} - {f"machine_{n}" for n in range(1, 6)}:
        shorter = {name: value for name, value in record.items() if name != left_out}
        assert predict(served, shorter, "predict_real_time").json() == whole


# The page -----------------------------------------------------------------------------


def test_the_page_works_word_for_word(served, command_line, postgres, migrated, tmp_path):
    """On a plant of its own, for it makes a key."""
    postgres.create_database("page", template=migrated)
    database = Database(postgres.url("page"), served.settings.database)
    settings = served.settings.changed(models_url=str(tmp_path / "models"))
    plant(database, settings)
    variables = environment(database, settings, **SMALL)
    text = PAGE.read_text(encoding="utf-8")
    made = command_line.run(
        ["keys", "create", "line 3 gateway", "--can-label"], variables, folder=tmp_path
    )
    key = made.stdout.split()[-1]
    assert 'anomaly keys create "line 3 gateway" --can-label' in text
    with serving(variables, folder=tmp_path) as api:
        here = {**variables, "KEY": key}
        shells = re.findall(r"```sh\n(.*?)```", text, re.S)
        programs = re.findall(r"```python\n(.*?)```", text, re.S)
        assert (len(shells), len(programs)) == (7, 7)
        script = "set -e\n" + "\necho\n".join(shells).replace(
            "curl -s ", "curl -sS --fail-with-body "
        )
        program = "\n".join(programs)
        for run in (["bash", "-c", script], [sys.executable, "-c", program]):
            asked = [part.replace("http://127.0.0.1:8000", api.address) for part in run]
            said = subprocess.run(asked, capture_output=True, text=True, env=here, check=False)
            assert said.returncode == 0, said.stdout + said.stderr
    assert "480 verdicts of the day" in said.stdout
    assert rows(database, "SELECT label, labelled_by FROM anomaly.labels ORDER BY label_id") == [
        ("maintenance", "line 3 gateway"),
        ("real", "line 3 gateway"),
    ]
    database.dispose()
    postgres.drop_database("page")


# Mistakes -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "body", "said"),
    [
        ("predict_real_time", b"", "the body is no JSON"),
        ("predict_real_time", b"{", "the body is no JSON"),
        ("predict_real_time", b"[" * 5000, "the body is no JSON"),
        ("predict_real_time", b"[]", "the body is no record: send one object"),
        ("predict_real_time", b"{}", "record 1 has no utc_timestamp"),
        ("predict_real_time", b'{"utc_timestamp": "2026-03-10"}', "no field of the records is a"),
        ("predict_real_time", b'{"utc_timestamp": 1, "machine_1": 1}', "utc_timestamp is 1: send"),
        ("predict_real_time", b'{"utc_timestamp": null, "machine_1": 1}', "utc_timestamp is None"),
        ("predict_batch", b"{}", "the body is no list: send a list of records"),
        ("predict_batch", b'{"records": 1}', "records is no list"),
        ("predict_batch", b'{"records": [], "previous": 1}', "previous is no list"),
        ("predict_batch", b'{"records": [], "previous": [1]}',
         "previous: record 1 is 1: send an object"),
        ("predict_batch", b'[{"utc_timestamp": "2026-03-10", "machine_1": "invalid"}]',
         "record 1: machine_1 is 'invalid': send a number"),
        ("predict_batch", b'[{"utc_timestamp": "2026-03-10", "machine_1": 1e400}]', None),
        ("predict_batch", b'[{"utc_timestamp": "2026-03-10", "machine_1": true}]',
         "machine_1 is True"),
        ("predict_batch", b'[{"utc_timestamp": "2026-03-10", "mahcine_1": 1, "machine_2": 1}]',
         "did you mean machine_1?"),
        ("predict_batch", b'[{"utc_timestamp": "\\u0000", "machine_1": 1}]', "utc_timestamp is"),
        ("predict_batch", b'[{"utc_timestamp": "0001-01-01", "machine_1": 1}]', "from 1970"),
    ],
)  # fmt: skip
def test_a_mistake_is_refused_by_name(served, call, body, said):
    answer = served.client.post(f"/{call}", content=body)

    if said is None:
        assert answer.json() == {"prediction_result": []}  # infinity is no reading
        return
    assert answer.status_code == 422, answer.text
    assert said in answer.json()["detail"]
    assert "\n" not in answer.json()["detail"]


def test_too_much_is_refused_before_it_is_read(served):
    body = b"[" + b" " * 1_000_001 + b"]"
    chunks = iter([b" " * 100_000] * 11)

    assert served.client.post("/predict_batch", content=body).status_code == 413
    assert served.client.post("/predict_batch", content=chunks).status_code == 413
    assert served.client.post("/labels", content=b"{" + b" " * 70_000 + b"}").status_code == 413
    many = "[" + ",".join(["{}"] * 10_001) + "]"
    answer = served.client.post("/predict_batch", content=many)
    assert (answer.status_code, answer.json()["detail"]) == (
        413,
        "10001 records are too many: send no more than 10000 at once",
    )


def test_what_is_not_there_or_not_so_is_said_in_the_same_form(served):
    for verb, path, status in (
        ("GET", "/nothing", 404),
        ("GET", "/predict_batch", 405),
        ("GET", "/verdicts?limit=0", 422),
        ("GET", "/verdicts?machine=Nobody", 422),
        ("GET", "/verdicts?start=yesterday", 422),
        ("GET", "/verdicts?start=2026-03-09&end=2026-03-08", 422),
        ("GET", "/verdicts?after=3", 422),
        ("GET", "/verdicts?after=99999999999,2026-03-08", 422),
        ("GET", "/incidents?after=x", 422),
        ("GET", "/incidents?state=lost", 422),
        ("GET", "/machines?after=-1", 422),
        ("GET", "/verdicts?start=0001-01-01T00:00:00%2B14:00", 422),
        ("GET", "/verdicts?end=9999-12-31T23:59:59-12:00", 422),
        ("GET", "/verdicts?after=1,9999-12-31T23:59:59-12:00", 422),
    ):
        answer = served.client.request(verb, path)
        assert answer.status_code == status, (path, answer.text)
        assert isinstance(answer.json()["detail"], str)
        assert re.fullmatch("[0-9a-f]{32}", answer.headers["X-Request-ID"])


# Listings -----------------------------------------------------------------------------


def every_page(served, path, name):
    found, pages, asked = [], 0, path
    while asked:
        answer = served.client.get(asked)
        assert answer.status_code == 200, answer.text
        found += answer.json()[name]
        pages += 1
        link = answer.headers.get("Link", "")
        assert bool(link) == (answer.json()["next"] is not None)
        asked = path.split("?")[0] + re.search("<(.*?)>", link)[1] if link else None
    return found, pages


def test_pages_of_verdicts_hold_each_verdict_once_in_order(served):
    found, pages = every_page(served, "/verdicts?limit=1000", "verdicts")

    keys = [(row["machine_id"], row["utc_timestamp"]) for row in found]
    assert pages == math.ceil(5 * LEARNT / 1000)
    assert keys == sorted(set(keys))
    assert len(keys) == 5 * LEARNT
    one = "machine=2&start=2026-03-03&end=2026-03-04"
    assert len(every_page(served, f"/verdicts?{one}&limit=50", "verdicts")[0]) == 96
    odd = every_page(served, "/verdicts?anomaly=1&limit=7", "verdicts")[0]
    assert len(odd) == sum(row["anomaly"] for row in found) > 7


def test_verdicts_are_those_of_the_view(served):
    asked = "/verdicts?machine=machine_3&start=2026-03-03&end=2026-03-03T00:15Z"
    (told,) = served.client.get(asked).json()["verdicts"]

    (stored,) = rows(
        served.database,
        f"SELECT {', '.join(told)} FROM bi.verdicts"
        " WHERE machine_id = 3 AND utc_timestamp = '2026-03-03Z'",
    )
    plain = [value.isoformat().replace("+00:00", "Z") if hasattr(value, "isoformat") else value
             for value in stored]  # fmt: skip
    assert list(told.values()) == plain


def test_incidents_machines_and_models_are_listed(served):
    incidents = every_page(served, "/incidents?limit=5", "incidents")[0]
    stored = rows(served.database, "SELECT incident_id FROM bi.incidents ORDER BY 1 DESC")
    assert [row["incident_id"] for row in incidents] == [number for (number,) in stored]
    of_two = every_page(served, "/incidents?machine=2&severity=notice&limit=3", "incidents")[0]
    assert {(row["machine_id"], row["severity"]) for row in of_two} == {(2, "notice")}
    since = {"start": "2026-03-05", "end": "2026-03-07", "limit": 10_000}
    during = served.client.get("/incidents", params=since).json()["incidents"]
    assert 0 < len(during) < len(incidents)
    assert all(row["started_at"] < "2026-03-07" for row in during)
    assert all(row["ended_at"] is None or row["ended_at"] > "2026-03-05" for row in during)
    machines = every_page(served, "/machines?limit=2", "machines")[0]
    assert [row["machine_id"] for row in machines] == [1, 2, 3, 4, 5]
    (model,) = every_page(served, "/models?limit=1", "models")[0]
    assert (model["model_version"], model["judges_new_readings"]) == (1, True)


@pytest.mark.parametrize(
    ("accept", "is_csv"),
    [
        ("text/csv", True),
        ("text/*", True),
        ("text/csv;q=0.9, application/json;q=0.5", True),
        ("text/csv;q=0", False),
        ("text/csv;q=0.4, */*", False),
        ("text/csv-schema", False),
        ("*/*", False),
        ("text/html", False),
    ],
)
def test_csv_is_told_where_it_is_preferred(served, accept, is_csv):
    answer = served.client.get("/machines?limit=2", headers={"Accept": accept})

    assert answer.headers["Content-Type"].startswith("text/csv") is is_csv
    if is_csv:
        assert answer.text.splitlines()[1].startswith("1,machine_1,")
        assert answer.headers["Link"] == '<?limit=2&after=2>; rel="next"'


# Labels -------------------------------------------------------------------------------


def test_labels_are_written_once_and_change_incidents(served):
    (number, machine) = rows(
        served.database,
        "SELECT incident_id, machine_id FROM bi.incidents ORDER BY incident_id LIMIT 1",
    )[0]
    said = {"incident_id": number, "label": "false_alarm", "note": "cleaning"}

    first, again = (served.client.post("/labels", json=said) for _ in range(2))

    assert first.status_code == 201, first.text
    assert again.json()["label_id"] == first.json()["label_id"]
    assert first.json()["machine_id"] == machine
    shown = served.client.get(f"/incidents?machine={machine}&limit=10000").json()["incidents"]
    assert {row["label"] for row in shown if row["incident_id"] == number} == {"false_alarm"}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"label": "real"}, "send incident_id, or machine, start and end"),
        ({"label": "real", "incident_id": 1, "machine": "1"}, "and not both"),
        ({"label": "real", "machine": "1", "start": "2026-03-03"}, "send incident_id, or machine"),
        ({"label": "nice", "incident_id": 1}, "label is 'nice'"),
        ({"label": "real", "incident_id": 10**7}, "there is no incident 10000000"),
        ({"label": "real", "incident_id": 2**70}, "incident_id"),
        ({"label": "real", "incident_id": True}, "incident_id is True"),
        ({"label": "real", "incident_id": 1, "note": "\0"}, "no database stores"),
        ({"label": "real", "incident_id": 1, "note": "\ud800"}, "unicode"),
        ({"label": "real", "machine": "\ud800", "start": "2026-03-03", "end": "2026-03-04"},
         "no database stores"),
        ({"label": "real", "incident_id": 1, "note": "x" * 1001}, "note"),
        ({"label": "real", "incident_id": 1, "mote": "x"}, "mote"),
        ({"label": "real", "machine": "9", "start": "2026", "end": "2027"}, "2026"),
        ({"label": "real", "machine": 9, "start": "2026-03-03", "end": "2026-03-04"}, "machine"),
        ({"label": "real", "machine": "9", "start": "2026-03-03", "end": "2026-03-04"},
         "no machine is called '9'"),
        ({"label": "real", "machine": "1", "start": "2026-03-05", "end": "2026-03-04"}, "is empty"),
    ],
)  # fmt: skip
def test_a_wrong_label_is_refused_and_nothing_is_written(served, body, said):
    before = rows(served.database, "SELECT count(*) FROM anomaly.labels")

    answer = served.client.post(
        "/labels", content=json.dumps(body), headers={"Content-Type": "application/json"}
    )

    assert answer.status_code == 422, answer.text
    assert said in answer.json()["detail"]
    assert rows(served.database, "SELECT count(*) FROM anomaly.labels") == before


def test_a_label_that_is_no_json_is_refused_in_plain_words(served):
    json_type = {"Content-Type": "application/json"}
    broken = served.client.post("/labels", content="{bad", headers=json_type)
    untyped = served.client.post("/labels", content='{"incident_id": 3, "label": "real"}')

    assert broken.json()["detail"] == "the body is no JSON: send an object"
    assert "send the header Content-Type: application/json" in untyped.json()["detail"]


# What is told of it -------------------------------------------------------------------


def test_each_request_is_logged_by_the_number_that_its_answer_has(served):
    answer = predict(served, [{"utc_timestamp": "noon", "machine_1": 1}])

    line = served.logged(answer.headers["X-Request-ID"])

    assert (line["method"], line["path"], line["status"]) == ("POST", "/predict_batch", 422)
    assert line["caller"] == "anybody on this machine"
    assert 0 < line["seconds"] < 30


def test_the_metrics_tell_of_requests_verdicts_and_memory(served):
    def measured():
        text = served.client.get("/metrics").text
        return dict(line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")

    before = measured()
    predict(served, RECORDED, "predict_real_time")
    served.client.get("/no/such/path")
    after = measured()

    name = 'anomaly_api_requests_total{method="POST",path="/predict_real_time",status="200"}'
    assert float(after[name]) == float(before.get(name, 0)) + 1
    assert 'path="other",status="404"' in " ".join(after)
    assert not any("/no/such/path" in key for key in after)
    served.client.request("ZAP", "/machines")
    assert 'method="ZAP"' not in served.client.get("/metrics").text
    verdicts_told = [float(after[f'anomaly_api_verdicts_total{{kind="{kind}"}}'])
                     - float(before[f'anomaly_api_verdicts_total{{kind="{kind}"}}'])
                     for kind in ("normal", "abnormal")]  # fmt: skip
    assert sum(verdicts_told) == 1
    assert float(after["process_resident_memory_bytes"]) > 1e7


def test_the_description_names_the_record_and_every_refusal(served):
    described = served.client.get("/openapi.json").json()
    body = described["paths"]["/predict_real_time"]["post"]["requestBody"]
    record = body["content"]["application/json"]["schema"]

    assert list(record["properties"]) == [*RECORD, "previous"]
    assert record["required"] == ["utc_timestamp"]
    assert set(record["example"]) == set(RECORD)
    assert set(described["components"]["securitySchemes"]) == {"bearer", "key"}
    for name in ("Verdict", "Incident", "Machine", "ModelVersion", "LabelGiven"):
        form = described["components"]["schemas"][name]
        assert len(form["example"]) > 3, name
        assert set(form["example"]) <= set(form["properties"]), name
    for path, verbs in described["paths"].items():
        for call in verbs.values():
            assert call.get("description"), path
            if path != "/health/live":
                assert {"401", "403", "429"} <= set(call["responses"]), path


def test_who_hangs_up_while_he_sends_is_no_fault_of_the_server(served):
    host, port = served.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as caller:
        caller.sendall(
            b"POST /predict_batch HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n[{"
        )
    deadline = time.monotonic() + 20
    while not (lines := [line for line in served.lines if '"status": 499' in line]):
        assert time.monotonic() < deadline
        time.sleep(0.05)

    assert '"path": "/predict_batch"' in lines[0]
    assert not [line for line in served.lines if "traceback" in line]


def test_health_says_whether_records_can_be_judged(served, postgres, migrated, tmp_path):
    assert served.client.get("/health").json() == {
        "status": "ok",
        "model_version": 1,
        "version": json.loads(served.client.get("/openapi.json").text)["info"]["version"],
    }
    postgres.create_database("untrained", template=migrated)
    empty = Database(postgres.url("untrained"), served.settings.database)
    with serving(environment(empty, served.settings, **SMALL), folder=tmp_path) as api:
        answer = api.client.get("/health")
        assert (answer.status_code, answer.json()["model_version"]) == (503, None)
        assert "there is no model" in answer.json()["status"]
        answer = predict(api, RECORDED, "predict_real_time")
        assert answer.status_code == 503
        assert "no model version is in force" in answer.json()["detail"]
        execute(served.database, "ALTER DATABASE untrained ALLOW_CONNECTIONS false")
        execute(
            served.database,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'untrained'",
        )
        answer = predict(api, RECORDED, "predict_real_time")
        assert (answer.status_code, answer.json()) == (
            503,
            {"detail": "the server cannot answer now, its log says why"},
        )
        while "the server cannot judge now" not in api.client.get("/health").text:
            time.sleep(0.1)
        assert api.client.get("/health/live").json() == {"status": "ok"}
    empty.dispose()
    postgres.drop_database("untrained")
