"""What messages say: each shipped template, and templates of a user's own."""

from datetime import UTC, datetime, timedelta

import pytest

from anomaly.alerts.messages import SHIPPED, TEMPLATES, facts_of, lasting, write_message
from anomaly.errors import AlertError
from anomaly.settings import AlertSeverity, load_settings

SETTINGS = load_settings({})
NOW = datetime(2026, 3, 4, 12, 30, tzinfo=UTC)
SAMPLES = {"opened": "is not as usual", "worsened": "has become worse",
           "ended": "is as usual again", "escalated": "NOBODY HAS ANSWERED"}  # fmt: skip


def event(**changes):
    began = NOW - timedelta(hours=3)
    return {
        "event_id": 1, "event": "opened", "kind": "machine", "severity": "warning", "says": "",
        "created_at": NOW - timedelta(hours=1), "incident_id": 12, "machine_id": 3,
        "machine": "Saw {{ 3 }}", "site": "Hall <2>", "clock": "Europe/Berlin", "state": "open",
        "started_at": began, "last_at": NOW - timedelta(minutes=15), "ended_at": None,
        "settled": False, "reason": "power 12.3 kW is above the usual 5.1 kW",
        "severity_now": "warning", "excess_kwh": 21.62, "acknowledged_by": None,
        "price_per_kwh": 0.25, "currency": "EUR",
    } | changes  # fmt: skip


def written(*events, number: int | None = 7, alerts=SETTINGS.alerts):
    facts = [facts_of(one, NOW, SETTINGS.meter, SETTINGS.incidents) for one in events]
    return write_message(facts, number, alerts)


@pytest.mark.parametrize("name", SAMPLES)
def test_a_message_about_an_incident_says_which_machine_since_when_and_how_to_answer(name):
    message = written(event(event=name))

    assert SAMPLES[name] in message.title
    assert "Saw {{ 3 }} (Hall <2>)" in message.title
    assert "\n" not in message.title
    since = "Wed 2026-03-04 10:30 CET"
    assert since in message.title + message.body
    assert "anomaly label --incident 12 real" in message.body
    assert "by the form of the DAG label_incident" in message.body
    assert message.body.splitlines()[-1] == "Incident 12, message 7"
    assert message.severity is AlertSeverity.WARNING


@pytest.mark.parametrize("name", ["opened", "worsened", "ended"])
def test_energy_and_its_cost_are_said_where_they_are_known(name):
    known = written(event(event=name)).body
    no_price = written(event(event=name, price_per_kwh=None)).body
    unknown = written(event(event=name, excess_kwh=None)).body

    assert "Energy beyond the usual: 21.6 kWh, 5.41 EUR." in known
    assert "Energy beyond the usual: 21.6 kWh." in no_price
    assert "Energy" not in unknown


def test_an_incident_that_was_over_when_it_was_found_says_so():
    message = written(event(state="closed", ended_at=NOW - timedelta(hours=1)))

    assert message.title.endswith("was not as usual")
    assert "From Wed 2026-03-04 10:30 CET to Wed 2026-03-04 12:30 CET, 2.0 h." in message.body
    assert "--acknowledge" in written(event()).body
    assert "--acknowledge" not in message.body  # it would be refused


def test_a_faulty_meter_is_no_fault_of_the_machine():
    assert "has trouble with its meter" in written(event(kind="meter")).title


def test_the_end_of_what_was_corrected_or_has_become_normal_says_why():
    withdrawn = written(event(event="ended", state="withdrawn"))
    assert "its readings were corrected" in withdrawn.title
    assert "anomaly label" not in withdrawn.body  # it would be refused
    settled = written(event(event="ended", settled=True, ended_at=NOW))
    assert "has a new normal" in settled.title
    assert "the next training learns" in settled.body


def test_a_message_about_the_pipeline():
    says = "nothing has been scored since 2026-03-04 10:00 UTC; look at the DAG score_readings"
    none = dict.fromkeys(event(), None)
    message = written(
        none | {"event": "unscored", "kind": "pipeline", "severity": "critical", "says": says,
                "created_at": NOW}
    )  # fmt: skip

    assert message.title == "CRITICAL: nothing has been scored since 2026-03-04 10:00 UTC"
    assert says in message.body
    assert message.severity is AlertSeverity.CRITICAL


def test_many_at_once_are_a_list_as_severe_as_its_worst():
    message = written(
        event(), event(event_id=2, incident_id=13, machine="Press", severity_now="critical")
    )

    assert message.title == "CRITICAL: 2 machines and meters at once"
    first, second = (line for line in message.body.splitlines() if line.startswith("- "))
    assert first.startswith(
        "- Press (Hall <2>), incident 13, critical, opened since Wed 2026-03-04"
    )
    assert "21.6 kWh beyond the usual, 5.41 EUR: power 12.3" in first
    assert second.startswith("- Saw {{ 3 }} (Hall <2>), incident 12, warning, opened since")
    assert message.severity is AlertSeverity.CRITICAL


def test_of_very_many_at_once_the_first_twenty_are_listed():
    message = written(*(event(event_id=number, incident_id=number) for number in range(1, 31)))

    assert message.title == "Warning: 30 machines and meters at once"
    assert sum(line.startswith("- ") for line in message.body.splitlines()) == 20
    assert "and 10 more: `anomaly incidents` lists them." in message.body


def test_ends_at_once_say_so():
    message = written(*(event(event="ended", ended_at=NOW, incident_id=n) for n in (1, 2)))

    assert message.title == "Over: 2 machines and meters are as usual again"


def test_only_what_says_nothing_but_ends_is_good_news():
    ended = event(event="ended", ended_at=NOW)

    assert written(ended).is_over
    assert written(ended, ended).is_over
    assert not written(ended, event()).is_over


def test_control_characters_of_data_reach_no_message():
    message = written(event(machine="Saw\n\x1b[31m3", reason="up\x07\nwards"))

    assert "\x1b" not in message.title + message.body
    assert "\x07" not in message.body
    assert "\n" not in message.title


def own(tmp_path, text: str):
    (tmp_path / "opened.txt").write_text(text)
    return SETTINGS.alerts.model_copy(update={"alert_templates": str(tmp_path)})


def test_a_template_of_ones_own_replaces_the_shipped_one_and_no_other(tmp_path):
    alerts = own(tmp_path, "Achtung: {{ machine }}\n\nseit {{ since }}\n")

    mine = written(event(), alerts=alerts)
    assert (mine.title, mine.body) == ("Achtung: Saw {{ 3 }}", "seit Wed 2026-03-04 10:30 CET")
    assert "as usual again" in written(event(event="ended"), alerts=alerts).title


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{{ machin }}", "'machin' is undefined"),
        ("{% if %}", "Expected an expression"),
        ("{{ machine.__class__.__mro__ }}", "SecurityError"),
        ("{{ 1 + machine }}", "TypeError"),
        ("{% include '/etc/passwd' %}", "TemplateNotFound"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{% include 'opened.txt' %}", "RecursionError"),
    ],
)
def test_a_template_that_cannot_be_used_is_named(tmp_path, text, found):
    with pytest.raises(AlertError) as refused:
        written(event(), alerts=own(tmp_path, text))

    assert f"the template opened.txt in {tmp_path} cannot be used" in str(refused.value)
    assert found in str(refused.value)


def test_every_shipped_file_is_a_template_that_the_product_uses():
    assert sorted(path.stem for path in SHIPPED.iterdir()) == sorted(TEMPLATES)


@pytest.mark.parametrize(
    ("minutes", "words"), [(0, "0 min"), (119, "119 min"), (120, "2.0 h"), (2880, "2 days")]
)
def test_how_long_something_lasted(minutes, words):
    assert lasting(timedelta(minutes=minutes)) == words
