"""What people do with incidents on the command line: look, say, take back, take on."""

import csv
import io
import json
import os
import pty
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from anomaly.cli.app import app
from anomaly.database.connection import Database
from anomaly.database.results import Origin
from anomaly.database.scoring_runs import RequestedBy
from anomaly.scoring.publishing import Job
from anomaly.scoring.scorer import Scorer
from anomaly.settings import load_settings
from anomaly.windows import Window, floor_to_interval
from anomaly.wording import printable
from deployment import QUARTER, execute, insert, rows, train_in_force

DAY = 96
QUARTERS = 29 * DAY
NAME = "Fan [new] 3 \x1b[31m:smile: \u202e" + "of the old hall behind the yard " * 4
ANOMALY = Path(sys.executable).with_name("anomaly")


@pytest.fixture(scope="module")
def template(postgres, migrated, tmp_path_factory):
    """Four weeks and a day that end now; machine 3 draws 20 kW more since seven hours ago."""
    end = floor_to_interval(datetime.now(UTC), QUARTER)
    models = tmp_path_factory.mktemp("models")
    settings = load_settings(models_url=str(models))
    postgres.create_database("commands", template=migrated)
    database = Database(postgres.url("commands"), settings.database)
    random = np.random.default_rng(4)
    power = random.normal(16, 0.5, (QUARTERS, 2))
    power[-28:, 1] += 20
    frame = pd.DataFrame((power / 4).cumsum(axis=0).round(3), columns=["machine_1", "machine_3"])
    frame.insert(0, "utc_timestamp", [end - n * QUARTER for n in range(QUARTERS, 0, -1)])
    insert(database, frame)
    start = frame["utc_timestamp"].iloc[0]
    train_in_force(database, settings, Window(start, end - DAY * QUARTER))
    execute(
        database,
        "UPDATE anomaly.machines SET time_zone = 'Asia/Kathmandu', name = :name, site = '[hall]'"
        " WHERE machine_id = 3",
        name=NAME,
    )
    job = Job(Origin.LIVE, RequestedBy("test"))
    Scorer(database, settings).score_range(Window(start, end), job)
    database.dispose()
    yield "commands", models
    postgres.drop_database("commands")


@pytest.fixture
def plant(postgres, template):
    """The number of the one open incident, of machine 3, in a database of the test's own."""
    source, models = template
    name = f"plant_{os.urandom(6).hex()}"
    postgres.create_database(name, template=source)
    settings = load_settings(models_url=str(models))
    database = Database(postgres.url(name), settings.database)
    yield Plant(database, postgres.url(name), str(models))
    database.dispose()
    postgres.drop_database(name)


class Plant:
    """A deployment, and commands run on it."""

    def __init__(self, database, url: str, models: str) -> None:
        self.database = database
        self.environment = {
            "PATH": os.environ["PATH"], "HOME": models, "ANOMALY_DATABASE_URL": url,
            "ANOMALY_MODELS_URL": models,
        }  # fmt: skip
        ((self.number,),) = rows(
            database, "SELECT incident_id FROM anomaly.incidents WHERE state = 'open'"
        )

    def run(self, *arguments, code: int = 0, **changed) -> str:
        done = CliRunner().invoke(
            app, [str(each) for each in arguments], env=self.environment | changed
        )
        assert done.exit_code == code, (done.output, done.exception)
        return done.stdout

    def json(self, *arguments, code: int = 0, **changed):
        return json.loads(self.run(*arguments, "--json", code=code, **changed))

    def refused(self, *arguments) -> str:
        done = subprocess.run(
            [ANOMALY, *map(str, arguments)], env=self.environment, capture_output=True, text=True,
            check=False, timeout=60,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (1, "")
        (line,) = done.stderr.splitlines()
        return line

    def terminal(self, *arguments, columns: int = 80) -> str:
        """What a terminal of so many columns is sent."""
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [ANOMALY, *map(str, arguments)], stdout=theirs, stderr=theirs, stdin=theirs,
            env=self.environment | {"COLUMNS": str(columns), "TERM": "xterm", "NO_COLOR": "1"},
        )  # fmt: skip
        os.close(theirs)
        sent = b""
        try:
            while piece := os.read(ours, 65536):
                sent += piece
        except OSError:  # the other side is closed
            pass
        process.wait(timeout=60)
        os.close(ours)
        return re.sub(r"\x1b\[[0-9;]*m", "", sent.decode().replace("\r\n", "\n"))

    def state(self) -> str:
        return self.incident()["state"]

    def incident(self) -> dict:
        (found,) = [i for i in self.json("incidents", "--all") if i["incident_id"] == self.number]
        return found


# Tables


def test_in_a_pipe_each_incident_is_one_line_with_all_of_its_text(plant):
    lines = plant.run("incidents").splitlines()

    (line,) = [line for line in lines if re.search(rf"\W{plant.number} ", line)]
    assert printable(NAME).strip() in line
    assert plant.incident()["reason"] in line


def test_text_from_data_steers_no_terminal_and_is_no_markup(plant):
    for arguments, code in [
        (("incidents",), 0), (("status",), 3), (("incidents", "show", plant.number), 0),
    ]:  # fmt: skip
        shown = plant.run(*arguments, code=code)
        assert "Fan [new] 3 \\x1b[31m:smile: \\u202eof the old hall" in shown
        assert not set(shown) & {"\x1b", "\u202e"}


@pytest.mark.parametrize("columns", [80, 200])
def test_in_a_terminal_cells_are_wrapped_and_not_cut(plant, columns):
    reason = plant.incident()["reason"]

    sent = plant.terminal("incidents", columns=columns)

    assert max(map(len, sent.splitlines())) <= columns
    assert "…" not in sent
    cells = [line.split("│") for line in sent.splitlines() if "│" in line]
    assert "".join(row[-2] for row in cells).replace(" ", "").endswith(reason.replace(" ", ""))
    name = "".join(row[2] for row in cells).replace(" ", "")
    assert printable(NAME).replace(" ", "") in name


def test_csv_holds_what_the_table_holds(plant):
    plant.run("label", "--incident", plant.number, "real", "--note", 'a "test", run\nin two lines')
    for arguments in [("incidents",), ("labels", "list"), ("models", "list")]:
        table, listed = plant.run(*arguments, "--csv"), plant.json(*arguments)

        found = list(csv.DictReader(io.StringIO(table)))

        assert len(found) == len(listed) == len(table.splitlines()) - 1
        for row, expected in zip(found, listed, strict=True):
            for name, value in row.items():
                assert value == _as_csv(expected[name])


def _as_csv(value) -> str:
    return "" if value is None else printable(str(value)) if isinstance(value, str) else str(value)


def test_times_are_those_of_the_machine_or_of_a_zone_and_json_stays_utc(plant):
    started = datetime.fromisoformat(plant.incident()["started_at"])

    machines, asked = plant.run("incidents"), plant.run("incidents", "--tz", "America/New_York")

    assert started.utcoffset().total_seconds() == 0
    for zone, shown in (("Asia/Kathmandu", machines), ("America/New_York", asked)):
        assert f"{pd.Timestamp(started).tz_convert(zone):%Y-%m-%d %H:%M %Z}" in shown


# One incident


def test_the_page_of_an_incident_shows_readings_labels_and_who_took_it_on(plant):
    plant.run("incidents", "--acknowledge", plant.number, "--by", "Shift A")
    plant.run("label", "--incident", plant.number, "real", "--note", "bearing", "--by", "Ann")

    page = plant.run("incidents", "show", plant.number, "--readings", 100)

    drawn = [
        line for line in page.splitlines() if re.match(r"[!: ] \w{3} \d\d-\d\d \d\d:\d\d", line)
    ]
    verdicts = rows(
        plant.database,
        # Not of bi.verdicts: a power that is rounded twice may end beside one that is rounded once.
        "SELECT utc_timestamp, power_kw, expected_kw, anomaly FROM anomaly.anomaly_results"
        " WHERE machine_id = 3"
        "   AND utc_timestamp >= (SELECT started_at - interval '2 h' FROM anomaly.incidents"
        "                        WHERE incident_id = :n) ORDER BY 1",
        n=plant.number,
    )
    assert len(drawn) == len(verdicts) == 36
    for line, (moment, power, usual, anomaly) in zip(drawn, verdicts, strict=True):
        local = pd.Timestamp(moment).tz_convert("Asia/Kathmandu")
        assert line[2:17] == f"{local:%a %m-%d %H:%M}"
        numbers = re.findall(r"\d+\.\d", line[17:40])
        assert numbers[:2] == [f"{power:.1f}", f"{usual:.1f}"]
        assert line.startswith("!") == bool(anomaly)
        assert line[54:].count("*") == 1
        assert len(line) <= 80
    assert any("-" in line[54:] for line in drawn)
    assert all(word in page for word in ("Shift A", "bearing", "Ann", "real", "Asia/Kathmandu"))
    assert "... 26 more readings" in plant.run("incidents", "show", plant.number, "--readings", 10)


def test_the_page_of_an_incident_as_json_holds_the_same(plant):
    plant.run("incidents", "--acknowledge", plant.number, "--by", "Shift A")

    found = plant.json("incidents", "show", plant.number)

    assert found["acknowledgements"][0]["acknowledged_by"] == "Shift A"
    assert len(found["readings_around"]) == 36
    assert found["told_at"] > found["started_at"]


# Labels


def test_a_label_on_an_incident_is_on_its_machine_and_its_range(plant):
    done = plant.json("label", "--incident", plant.number, "false_alarm")

    found = plant.incident()
    assert (done["machine_id"], done["window"][0]) == (3, found["started_at"])
    assert (done["incidents_changed"], found["state"]) == (1, "closed")


def test_a_machines_number_that_is_an_incidents_too_is_told_apart_by_name(plant):
    number = plant.number
    machine = str(number)
    execute(
        plant.database,
        "UPDATE anomaly.machines SET name = :name WHERE machine_id = 1 AND NOT EXISTS"
        " (SELECT FROM anomaly.machines WHERE machine_id = :number)",
        name=machine,
        number=number,
    )
    range_ = ("--start", "2026-03-02", "--end", "2026-03-03")

    said = plant.run("label", machine, "real", *range_)

    assert f", not incident {number}: " in said


def test_a_label_taken_back_counts_no_more_and_stays_on_record(plant):
    label = plant.json("label", "--incident", plant.number, "false_alarm", "--by", "Ann")
    assert plant.state() == "closed"

    done = plant.json("labels", "remove", label["label_id"], "--by", "Bob")
    again = plant.json("labels", "remove", label["label_id"], "--by", "Eve")

    assert plant.state() == "open"
    assert (done["incidents_changed"], again["incidents_changed"]) == (1, 0)
    assert (done["withdrawn_by"], again["withdrawn_by"]) == ("Bob", "Bob")
    assert plant.json("labels", "list") == []
    (kept,) = plant.json("labels", "list", "--all")
    assert (kept["labelled_by"], kept["withdrawn_by"]) == ("Ann", "Bob")
    status = plant.json("status", code=3)
    assert {machine["precision"] for machine in status["machines"]} == {None}


def test_a_training_heeds_a_label_until_it_is_taken_back_and_an_old_one_is_reproduced(plant):
    def readings() -> int:
        plant.run("train")
        return rows(
            plant.database, "SELECT readings FROM anomaly.model_versions ORDER BY version DESC"
        )[0][0]

    everything = readings()
    ((first,),) = rows(plant.database, "SELECT min(utc_timestamp) FROM anomaly.meter_readings")
    day = (str((first + DAY * QUARTER).isoformat()), str((first + 2 * DAY * QUARTER).isoformat()))
    label = plant.json("label", 1, "maintenance", "--start", day[0], "--end", day[1])
    heeded = readings()
    plant.run("labels", "remove", label["label_id"])

    assert everything - heeded == DAY
    assert readings() == everything
    ((version,),) = rows(
        plant.database, "SELECT version FROM anomaly.model_versions WHERE readings = :n", n=heeded
    )
    assert plant.json("models", "reproduce", version)["same"] is True


# Taking on


def test_everybody_who_takes_an_incident_on_is_kept_and_the_first_is_named_first(plant):
    for who in ("Shift B", "Shift A", "Shift B"):
        plant.run("incidents", "--acknowledge", plant.number, "--by", who)

    assert plant.state() == "acknowledged"
    assert rows(
        plant.database, "SELECT acknowledged_by, acknowledged_by_all FROM bi.incidents"
        " WHERE incident_id = :n", n=plant.number,
    ) == [("Shift B", ["Shift B", "Shift A"])]  # fmt: skip


# Status


def test_status_leads_with_what_needs_somebody_and_its_exit_code_says_from_which_severity(plant):
    severity = plant.incident()["severity"]
    assert severity == "critical"  # twice as much and more, for seven hours

    for least, code in [("notice", 3), ("critical", 3), ("never", 0)]:
        lines = plant.run("status", code=code, ANOMALY_STATUS_EXIT_SEVERITY=least).splitlines()
        assert lines[0].startswith(f"needs attention: incident {plant.number} of ") == (code == 3)
        found = plant.json("status", code=code, ANOMALY_STATUS_EXIT_SEVERITY=least)
        assert [i["incident_id"] for i in found["incidents"]] == [plant.number]
        assert len(found["problems"]) == (code == 3)
        states = {m["machine_id"]: m["state"] for m in found["machines"]}
        assert (states[1], states[3]) == ("ok", "open critical")


def test_status_says_so_when_nothing_needs_anybody(plant):
    plant.run("incidents", "--acknowledge", plant.number)

    assert plant.run("status").splitlines()[0] == "Nothing needs attention."


def test_windows_without_a_reading_or_a_change_are_left_out_of_the_last_ones(plant):
    plant.run("score", "--start", "2020-01-01", "--end", "2020-03-01")

    runs = plant.json("status", code=3)["runs"]

    assert runs
    assert all(run["readings"] for run in runs)


# Refusals


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ("incidents", "--tz", "Mars/Base"),
            "--tz is 'Mars/Base', which is not a time zone: write",
        ),
        (("incidents", "--json", "--csv"), "--json and --csv exclude each other: write one"),
        (("incidents", "show", 99), "there is no incident 99: `anomaly incidents --all`"),
        (
            ("incidents", "show", 10**30),
            f"there is no incident {10**30}: ",
        ),
        (("label", "--incident", 99, "real"), "there is no incident 99: `anomaly incidents --all`"),
        (("label", "--incident", 1, "3", "real"), "--incident 1 has a machine and a range of its"),
        (
            ("label", "3", "real"),
            "'3 real' is not a machine with a range: write a machine, what it",
        ),
        (("label", "3", "broken"), "'broken' is not a label: write one of real, false_alarm,"),
        (("labels", "remove", 99), "there is no label 99: `anomaly labels list` lists them"),
        (("labels", "list", "--machine", "x"), "no machine is called 'x': write"),
    ],
)
def test_what_cannot_be_done_is_one_line_that_says_what_can(plant, arguments, says):
    assert plant.refused(*arguments).startswith(f"error: {says}")
