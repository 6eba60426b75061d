"""``anomaly alerts``: try routes out, look at what was told, silence, preview, own words."""

import json
import os
from datetime import UTC, datetime, timedelta

import pytest
from typer.testing import CliRunner

from anomaly.cli.app import app
from deployment import execute, rows

SECRET = "pass-word-4711"


@pytest.fixture
def anomaly(database, tmp_path):
    """Runs a command and gives its output; `code` is how it must end."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "ANOMALY_DATABASE_URL": database.engine.url.render_as_string(hide_password=False),
        "ANOMALY_MODELS_URL": str(tmp_path / "models"),
        "ANOMALY_STALE_AFTER_HOURS": "0",  # there are no readings
    }

    def run(*arguments, code: int = 0, **changed) -> str:
        done = CliRunner().invoke(app, list(map(str, arguments)), env=environment | changed)
        assert done.exit_code == code, (done.output, done.exception)
        return done.output if code == 0 else f"{done.output}{done.exception}"

    return run


@pytest.fixture
def incident(database):
    """Number of an incident of machine 3 that began two hours ago."""
    began = datetime.now(UTC) - timedelta(hours=2)
    execute(
        database,
        "INSERT INTO anomaly.machines (machine_id, source_key, name, site)"
        " VALUES (3, 'machine_3', 'Saw', 'Hall 1')",
    )
    execute(database, "SELECT anomaly.ensure_partitions(:t, :t)", t=began)
    execute(
        database,
        "INSERT INTO anomaly.anomaly_results (machine_id, utc_timestamp, reading, power_kw,"
        " expected_kw, anomaly_score, threshold, anomaly, quality, origin, model_version, run_id,"
        " scored_at, features_version)"
        " SELECT 3, t, 1, 9, 5, 0.9, 0.5, 1, 'ok', 'live', 1, 1, t, 2"
        " FROM generate_series(CAST(:t AS timestamptz), now(), interval '15 minutes') AS t",
        t=began,
    )
    ((number,),) = rows(
        database,
        "SELECT nextval(pg_get_serial_sequence('anomaly.incidents', 'incident_id'))",
    )
    execute(
        database,
        "INSERT INTO anomaly.incidents (incident_id, machine_id, kind, started_at, last_at,"
        " told_at, severity, reason, state, origin, opened_at, updated_at)"
        " OVERRIDING SYSTEM VALUE"
        " VALUES (:number, 3, 'machine', :t, now(), :t, 'warning', 'power 9 kW is above the usual"
        " 5 kW', 'open', 'live', :t, :t)",
        number=number,
        t=began,
    )
    return number


def happened(database, incident: int) -> None:
    execute(
        database,
        "INSERT INTO anomaly.alert_events"
        " (key, about, event, kind, severity, incident_id, created_at)"
        " VALUES (:key, :about, 'opened', 'machine', 'warning', :number, now())",
        key=f"incident:{incident}:1:warning",
        about=f"incident:{incident}",
        number=incident,
    )


# Routes -------------------------------------------------------------------------


def test_a_sample_goes_through_every_channel(anomaly, webhook, mailbox):
    said = anomaly("alerts", "test", ANOMALY_ALERT_ROUTES=f"{webhook.url} {mailbox.url}")

    assert len(said.splitlines()) == 2
    assert all(line.startswith("taken   everything: ") for line in said.splitlines())
    assert "Sample" in webhook.received[0]["title"]
    assert "nothing is wrong with any machine" in mailbox.texts()[0]


def test_a_channel_that_fails_is_shown_without_its_password(anomaly, webhook):
    webhook.answer = lambda _: 403
    url = webhook.url.replace("json://", f"json://ann:{SECRET}@") + f"/{SECRET}?key={SECRET}"

    said = anomaly("alerts", "test", code=1, ANOMALY_ALERT_ROUTES=url)

    host = webhook.url.removeprefix("json://").removesuffix("/hook")
    assert f"FAILED  everything: json://{host}: " in said
    assert "403" in said
    assert "1 of 1 channel did not take the sample" in said
    assert SECRET not in said


@pytest.mark.parametrize(
    ("routes", "found"),
    [
        ("", "there is no route: set ANOMALY_ALERT_ROUTES"),
        (f"carrier-pigeon://{SECRET}", "begins with 'carrier-pigeon', and apprise cannot use it"),
        (SECRET, "a URL of the route 'everything' has no '://'"),
        (f'[{{"name": "ops", "urls": "{SECRET}"', "this is no JSON"),
        (f'[{{"name": "ops", "urls": ["json://{SECRET}"], "colour": "red"}}]', "colour"),
        (f'[{{"name": "ops", "urls": ["json://{SECRET}"], "kinds": ["pump"]}}]', "kinds"),
        (f'{{"json://ann:{SECRET}@localhost": 1}}', "which is not shown here"),
        (f'[{{"name": "ops", "urls": ["json://{SECRET}"]}}] []', "this is no JSON"),
        (f'[{{"name": "ops", "urls": ["json://{SECRET}"], "severities": []}}]', "severities"),
        (
            json.dumps([{"name": "ops", "urls": [f"json://{SECRET}"]}] * 2),
            "two routes have the same name",
        ),
    ],
)
def test_routes_that_make_no_sense_are_refused_without_their_secrets(anomaly, routes, found):
    said = anomaly("alerts", "test", code=1, ANOMALY_ALERT_ROUTES=routes)

    assert found in said
    assert SECRET not in said


def test_config_shows_routes_without_their_secrets(anomaly):
    said = anomaly("config", ANOMALY_ALERT_ROUTES=f"json://ann:{SECRET}@localhost/{SECRET}")

    assert "ANOMALY_ALERT_ROUTES" in said
    assert SECRET not in said


# Send and list --------------------------------------------------------------------


def test_what_was_sent_is_listed_and_not_sent_again(anomaly, database, incident, webhook):
    happened(database, incident)
    routes = {"ANOMALY_ALERT_ROUTES": webhook.url}

    first = anomaly("alerts", "send", **routes)
    again = json.loads(anomaly("alerts", "send", "--json", **routes))

    assert first.startswith("1 message sent, 0 to be tried again, 0 given up, 0 with nothing left")
    assert first.endswith("0 told to nobody; 0 events and 0 messages waiting\n")
    assert again["sent"] == 0
    (one,) = json.loads(anomaly("alerts", "list", "--json"))
    assert (one["machine"], one["decision"], one["sent"]) == ("Saw", "told to everything", 1)
    assert json.loads(anomaly("alerts", "list", "--failed", "--json")) == []


def test_a_url_that_stands_twice_gets_it_once(anomaly, database, incident, webhook):
    happened(database, incident)

    anomaly("alerts", "send", ANOMALY_ALERT_ROUTES=f"{webhook.url} {webhook.url}")

    assert len(webhook.received) == 1


def test_messages_of_a_removed_machine_are_gone_and_stop_no_other(
    anomaly, database, incident, webhook
):
    happened(database, incident)
    webhook.answer = lambda _: 500
    anomaly("alerts", "send", ANOMALY_ALERT_ROUTES=webhook.url)
    anomaly("machines", "remove", "Saw", "--with-verdicts")
    execute(database, "UPDATE anomaly.alert_messages SET next_attempt = now()")
    webhook.answer = lambda _: 200

    said = anomaly("alerts", "send", ANOMALY_ALERT_ROUTES=webhook.url)

    assert said.startswith("0 messages sent, 0 to be tried again, 0 given up")
    assert rows(database, "SELECT count(*) FROM anomaly.alert_messages") == [(0,)]


def test_a_template_of_ones_own_that_fails_loses_no_message(
    anomaly, database, incident, webhook, tmp_path
):
    happened(database, incident)
    (tmp_path / "opened.txt").write_text("{{ machin }}")

    anomaly(
        "alerts", "send",
        ANOMALY_ALERT_ROUTES=webhook.url, ANOMALY_ALERT_TEMPLATES=str(tmp_path),
    )  # fmt: skip

    (one,) = webhook.received
    assert one["title"].startswith("Warning: Saw (Hall 1)")


def test_a_channel_that_is_slow_has_it_once(anomaly, database, incident, webhook):
    happened(database, incident)
    webhook.delay = 6.0

    said = anomaly("alerts", "send", ANOMALY_ALERT_ROUTES=webhook.url)

    assert said.startswith("1 message sent")
    assert len(webhook.received) == 1


def test_without_a_route_nobody_is_told_and_the_list_says_so(anomaly, database, incident):
    happened(database, incident)

    anomaly("alerts", "send")

    (one,) = json.loads(anomaly("alerts", "list", "--json"))
    assert one["decision"] == "nobody is told: no route takes it"


def test_what_was_given_up_is_listed_and_a_problem_of_status(anomaly, database, incident, webhook):
    happened(database, incident)
    webhook.answer = lambda _: 500
    anomaly("alerts", "send", ANOMALY_ALERT_ROUTES=webhook.url)
    execute(
        database,
        "UPDATE anomaly.alert_messages"
        " SET created_at = created_at - interval '25 hours', next_attempt = now(), attempts = 4",
    )

    said = anomaly("alerts", "send", ANOMALY_ALERT_ROUTES=webhook.url)

    assert "1 given up" in said
    (one,) = json.loads(anomaly("alerts", "list", "--failed", "--json"))
    assert (one["given_up"], "500" in one["error"]) == (1, True)
    status = anomaly("status", code=3)
    assert "1 alert could not be delivered by the route everything" in status


# Preview --------------------------------------------------------------------------


def test_the_message_and_picture_of_an_incident_are_shown(anomaly, incident, tmp_path):
    picture = tmp_path / "day.png"

    said = anomaly("alerts", "preview", incident, "--picture", picture)

    assert said.startswith("Warning: Saw (Hall 1) is not as usual\n\npower 9 kW is above")
    assert f"Incident {incident}, message sample" in said
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    over = anomaly("alerts", "preview", incident, "--ended")
    assert over.startswith("Over: Saw (Hall 1) is as usual again")


@pytest.mark.parametrize("number", [99, 2**80])
def test_an_incident_that_is_not_there_is_named(anomaly, number):
    assert f"there is no incident {number}" in anomaly("alerts", "preview", number, code=1)


# Silences -------------------------------------------------------------------------


def test_a_silence_is_set_listed_and_ended(anomaly, incident):
    said = anomaly("alerts", "silence", "--machine", "Saw", "--hours", "4", "--by", "Ann")
    assert said.startswith("silence 1, of machine Saw, until ")
    anomaly("alerts", "silence", "--site", "Hall 1", "--note", "power cut")
    anomaly("alerts", "silence", "--all")

    listed = json.loads(anomaly("alerts", "silences", "--json"))
    assert [(one["machine"], one["site"], one["note"]) for one in listed] == [
        (None, None, ""), (None, "Hall 1", "power cut"), ("Saw", None, ""),
    ]  # fmt: skip
    for number in (1, 2, 3):
        assert f"silence {number} ended at" in anomaly("alerts", "unsilence", number)
    assert json.loads(anomaly("alerts", "silences", "--json")) == []


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ([], "write one of --machine, --site and --all"),
        (["--all", "--site", "Hall 1"], "write one of --machine, --site and --all"),
        (["--machine", "Sow"], "'Sow'"),
        (["--site", "Hal 1"], "write one of 'Hall 1'"),
    ],
)
def test_a_silence_of_nothing_that_is_there_is_refused(anomaly, incident, arguments, found):
    assert found in anomaly("alerts", "silence", *arguments, code=1)
    assert json.loads(anomaly("alerts", "silences", "--json")) == []


def test_a_silence_that_is_not_there_is_named(anomaly):
    assert "there is no silence 7" in anomaly("alerts", "unsilence", 7, code=1)


# Own words ------------------------------------------------------------------------


def test_templates_are_copied_to_be_changed_and_never_overwritten(anomaly, incident, tmp_path):
    folder = tmp_path / "mine"
    anomaly("alerts", "templates", folder)
    (folder / "opened.txt").write_text("Achtung {{ machine }}\n\n{{ reason }}\n")

    said = anomaly("alerts", "preview", incident, ANOMALY_ALERT_TEMPLATES=folder.as_posix())
    assert said.startswith("Achtung Saw\n")
    assert "is there already: nothing was copied" in anomaly("alerts", "templates", folder, code=1)
    assert (folder / "opened.txt").read_text().startswith("Achtung")


def test_a_folder_of_templates_that_is_not_there_is_refused(anomaly, incident, tmp_path):
    gone = str(tmp_path / "gone")

    assert gone in anomaly("alerts", "preview", incident, code=1, ANOMALY_ALERT_TEMPLATES=gone)
