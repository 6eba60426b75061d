"""``anomaly serve`` and ``anomaly keys``: who may ask, how it starts and stops, and its limits."""

import json
import signal
import socket
import subprocess
import time

import pytest
from api_server import LEARNT, environment, plant, serving

from anomaly.api.refresher import REFRESH_SECONDS
from anomaly.windows import Window
from command_line import ANOMALY
from deployment import at, execute, rows, train_in_force
from integration_settings import SMALL

RECORDED = {"utc_timestamp": f"{at(LEARNT):%Y-%m-%d %H:%M:%S}", "machine_1": 970.5}
LABEL = {"machine": "1", "start": "2026-03-03", "end": "2026-03-04", "label": "real"}


@pytest.fixture
def variables(database, settings):
    plant(database, settings)
    return environment(database, settings, **SMALL)


def until(ask, status, seconds=30.0):
    """Ask until it is answered so; a new key counts within seconds."""
    end = time.monotonic() + seconds
    while (answer := ask()).status_code != status and time.monotonic() < end:
        time.sleep(0.2)
    assert answer.status_code == status, answer.text
    return answer


def made(command_line, variables, *arguments):
    found = command_line.run(["keys", *arguments, "--json"], variables)
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout)


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


def test_from_the_first_key_on_everybody_needs_a_valid_one(
    command_line, database, variables, tmp_path
):
    with serving(variables, folder=tmp_path) as api:
        ask = api.client.get
        assert ask("/machines").status_code == 200
        reader = made(command_line, variables, "create", "gateway")
        until(lambda: ask("/machines"), 401)
        writer = made(command_line, variables, "create", "operator", "--can-label")
        until(lambda: ask("/machines", headers=bearer(writer["key"])), 200)
        assert ask("/machines", headers={"X-API-Key": reader["key"]}).status_code == 200
        for headers in ({}, bearer("x"), {"Authorization": f"Basic {reader['key']}"}):
            refused = ask("/machines", headers=headers)
            assert refused.status_code == 401
            assert refused.headers["WWW-Authenticate"] == "Bearer"
        for path in ("/health/live", "/docs", "/openapi.json"):
            assert ask(path).status_code == 200
        said = [
            api.client.post("/labels", json=LABEL, headers=bearer(key["key"]))
            for key in (reader, writer)
        ]
        assert [answer.status_code for answer in said] == [403, 201]
        assert said[1].json()["labelled_by"] == "operator"

        made(command_line, variables, "revoke", "gateway")
        until(lambda: ask("/machines", headers=bearer(reader["key"])), 401)
        made(command_line, variables, "revoke", "operator")
        until(lambda: ask("/machines", headers=bearer(writer["key"])), 401)
        assert ask("/machines").status_code == 401, "all keys revoked: nobody may ask"
    stored = json.dumps(rows(database, "SELECT * FROM anomaly.api_keys"), default=str)
    assert reader["key"] not in stored
    assert [row["name"] for row in made(command_line, variables, "list")] == []
    assert {row["revoked_by"] for row in made(command_line, variables, "list", "--all")} != {None}
    again = subprocess.run([ANOMALY, "serve", "--port", "0"], env=variables, capture_output=True)
    assert again.returncode == 1
    assert b"error: every key is revoked: make one by `anomaly keys create" in again.stderr


def test_keys_that_somebody_has_deleted_open_no_door(command_line, database, variables, tmp_path):
    made(command_line, variables, "create", "gateway")
    with serving(variables, folder=tmp_path) as api:
        execute(database, "DELETE FROM anomaly.api_keys")
        end = time.monotonic() + 1.2 * REFRESH_SECONDS
        while time.monotonic() < end:
            assert api.client.get("/machines").status_code == 401
            time.sleep(0.3)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["create", "gateway"], "there is a key 'gateway' already: revoke it"),
        (["create", " "], "'' is no name for a key"),
        (["create", "a\nb"], "is no name for a key: write one line"),
        (["revoke", "nobody"], "there is no valid key 'nobody': `anomaly keys list` lists"),
    ],
)
def test_a_wrong_name_of_a_key_is_refused_in_one_line(
    command_line, database, settings, arguments, said
):
    variables = environment(database, settings)
    made(command_line, variables, "create", "gateway")

    found = command_line.run(["keys", *arguments], variables)

    assert found.returncode == 1
    assert said in found.stderr
    assert len(found.stderr.splitlines()) == 1


def test_a_revoked_name_may_be_given_again(command_line, database, settings):
    variables = environment(database, settings)
    first = made(command_line, variables, "create", "gateway")
    made(command_line, variables, "revoke", "gateway")

    second = made(command_line, variables, "create", "gateway")

    assert second["key"] != first["key"]
    shown = command_line.run(["keys", "list", "--all"], variables).stdout
    assert shown.count("gateway") == 2
    assert second["key"] not in shown


def test_without_keys_a_web_page_of_another_host_is_refused(variables, tmp_path):
    with serving(variables, folder=tmp_path) as api:
        for headers in (
            {"Host": "evil.example"},
            {"Host": "127.0.0.1.evil.example"},
            {"Origin": "https://evil.example"},
            {"Origin": "null"},
            {"Host": "["},
            {"Host": "[x]"},
            {"Origin": "http://["},
            {"X-Forwarded-For": "203.0.113.9"},
            {"Forwarded": "for=203.0.113.9"},
            {"Via": "1.1 proxy"},
        ):
            assert api.client.get("/machines", headers=headers).status_code == 403, headers
        for headers in ({"Host": "localhost:8000"}, {"Origin": api.address}):
            assert api.client.get("/machines", headers=headers).status_code == 200, headers


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--host", "0.0.0.0"], "others can reach 0.0.0.0, and there is no valid key: make one"),
        (["--host", "no.such.host.example"], "cannot listen on no.such.host.example:"),
        (["--port", "{taken}"], "cannot listen on 127.0.0.1:"),
    ],
)
def test_what_it_cannot_serve_is_said_in_one_line(database, settings, options, said):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        given = [option.format(taken=taken.getsockname()[1]) for option in options]
        given += [] if "--port" in given else ["--port", "0"]
        found = subprocess.run(
            [ANOMALY, "serve", *given],
            env=environment(database, settings),
            capture_output=True,
            text=True,
            check=False,
        )

    assert found.returncode == 1
    assert found.stderr.startswith(f"error: {said}")
    assert len(found.stderr.splitlines()) == 1


def test_it_serves_others_once_there_is_a_key(command_line, variables, tmp_path):
    key = made(command_line, variables, "create", "gateway")["key"]
    with serving(variables, "--host", "0.0.0.0", folder=tmp_path) as api:
        here = api.address.replace("0.0.0.0", "127.0.0.1")
        assert api.client.get(f"{here}/machines").status_code == 401
        assert api.client.get(f"{here}/machines", headers=bearer(key)).status_code == 200


def test_it_stops_when_it_is_told_to(variables, tmp_path):
    with serving(variables, folder=tmp_path) as api:
        api.client.get("/health/live")
        api.process.send_signal(signal.SIGTERM)
        api.process.wait(timeout=20)

    assert not [line for line in api.lines if "Traceback" in line]


def test_a_promotion_counts_without_a_restart_and_its_model_is_opened_before(
    database, settings, variables, tmp_path
):
    with serving(variables, folder=tmp_path) as api:

        def judged():
            answer = api.client.post("/predict_real_time", json=RECORDED)
            return answer.json()["prediction_result"][0]["model_version"]

        assert judged() == 1
        train_in_force(database, settings, Window(at(96), at(LEARNT)))
        end = time.monotonic() + 30
        while judged() == 1 and time.monotonic() < end:
            time.sleep(0.1)
        assert judged() == 2
        execute(database, "UPDATE anomaly.model_versions SET sha256 = '{}' WHERE version = 2")
        assert judged() == 2, "it has been opened already"


def test_too_many_requests_are_refused_by_caller_and_liveness_never(
    command_line, variables, tmp_path
):
    keys = [made(command_line, variables, "create", name)["key"] for name in ("one", "two")]
    limited = variables | {"ANOMALY_API_REQUESTS_PER_MINUTE": "5"}
    with serving(limited, folder=tmp_path) as api:
        wait = 61 - time.time() % 60
        if wait < 5:  # a minute that ends would count anew
            time.sleep(wait)

        def ask(headers):
            return api.client.get("/machines?limit=1", headers=headers)

        first = [ask(bearer(keys[0])).status_code for _ in range(7)]
        assert first == [200] * 5 + [429] * 2
        assert 1 <= int(ask(bearer(keys[0])).headers["Retry-After"]) <= 60
        assert ask(bearer(keys[1])).status_code == 200
        # Whatever key they try, strangers are counted by their address.
        guessed = [
            ask(bearer(f"guess {number}") | {"X-Forwarded-For": f"203.0.113.{number}"}).status_code
            for number in range(7)
        ]
        assert guessed == [401] * 5 + [429] * 2
        assert api.client.get("/health/live").status_code == 200


def test_health_knows_that_the_role_of_the_api_may_not_read_the_meter_table(
    database, variables, tmp_path
):
    right = "EXECUTE ON FUNCTION anomaly_reading.read_source(text)"
    execute(database, f"REVOKE {right} FROM anomaly_api")
    with serving(variables, folder=tmp_path) as api:
        assert api.client.get("/health").status_code == 503
        assert api.client.get("/health/live").status_code == 200
        execute(database, f"GRANT {right} TO anomaly_api")
        until(lambda: api.client.get("/health"), 200)


def test_a_database_that_waits_costs_its_caller_a_second_and_others_nothing(
    database, variables, tmp_path
):
    impatient = variables | {"ANOMALY_API_SECONDS": "1", "ANOMALY_API_AT_ONCE": "1"}
    with serving(impatient, folder=tmp_path) as api:
        assert api.client.post("/predict_real_time", json=RECORDED).status_code == 200
        with database.engine.begin() as holding:
            holding.exec_driver_sql("LOCK TABLE anomaly.meter_readings IN ACCESS EXCLUSIVE MODE")
            begun = time.monotonic()
            answer = api.client.post("/predict_real_time", json=RECORDED)
            assert answer.status_code in (503, 504), answer.text
            assert time.monotonic() - begun < 10
            assert api.client.get("/health/live").status_code == 200
            assert api.client.get("/health").json()["model_version"] == 1
        until(lambda: api.client.post("/predict_real_time", json=RECORDED), 200)
