"""Machines are described by a command or a file: all of it or nothing, and what remains is said."""

import json

import pytest

from anomaly.errors import MachineError
from anomaly.operations.machine_changes import change_all_machines, change_machine, import_machines
from deployment import execute, rows


@pytest.fixture
def database(database):
    execute(
        database,
        "INSERT INTO anomaly.machines (machine_id, source_key, name)"
        " VALUES (1, 'machine_1', 'machine_1'), (2, 'machine_2', 'machine_2')",
    )
    return database


def described(database):
    return rows(
        database,
        "SELECT machine_id, source_key, name, site, time_zone, max_power_kw, alert_budget,"
        " holidays, active_to IS NULL FROM anomaly.machines ORDER BY machine_id",
    )


def test_what_is_written_is_changed_and_the_rest_stays(database):
    changes = change_machine(
        database, "machine_1", {"name": "Saw", "time_zone": "Europe/Berlin", "max_power_kw": "80"}
    )
    again = change_machine(database, "Saw", {"name": "Saw"})
    change_machine(database, "1", {"max_power_kw": ""})

    assert described(database)[0] == (
        1, "machine_1", "Saw", "", "Europe/Berlin", None, None, None, True,
    )  # fmt: skip
    assert again.changed == {}
    assert len(changes.next_steps) == 2
    assert "--machines 1" in changes.next_steps[0]
    assert changes.next_steps[1].startswith("time_zone: models learn it")


def test_a_name_that_another_machine_has_is_noted_and_one_that_is_no_line_is_refused(database):
    same = change_machine(database, "1", {"name": "machine_2"}).next_steps
    number = change_machine(database, "1", {"name": "2"}).next_steps

    assert same[0].startswith("'machine_2' is also the name or the id of another machine")
    assert number[0].startswith("'2' is also")
    for wrong in ("Saw\n2", "Saw\x1b[31m"):
        with pytest.raises(MachineError, match="write one line of plain text"):
            change_machine(database, "1", {"name": wrong})


@pytest.mark.parametrize("between", [",", ";", "\t"])
def test_a_file_may_have_another_delimiter_and_one_without_rows_is_refused(
    database, command_line, tmp_path, between
):
    url = {"ANOMALY_DATABASE_URL": database.engine.url.render_as_string(hide_password=False)}
    file = tmp_path / "machines.csv"
    file.write_text(between.join(["source_key", "site"]) + "\n" + between.join(["machine_1", "A"]))
    read = command_line.run(["machines", "import", str(file)], url)
    file.write_text(between.join(["source_key", "site"]) + "\n")
    empty = command_line.run(["machines", "import", str(file)], url)

    assert "machine 1: site is A" in read.stdout
    assert empty.returncode == 1
    assert "has no rows: begin with" in empty.stderr


def test_every_machine_that_has_a_new_limit_is_named(database):
    execute(
        database,
        "INSERT INTO anomaly.machines (machine_id, source_key, name)"
        " SELECT n, 'm' || n, 'm' || n FROM generate_series(3, 30) AS n",
    )
    (step,) = change_all_machines(database, {"max_power_kw": "80"}).next_steps

    assert f"--machines {','.join(map(str, range(1, 31)))} " in step
    with pytest.raises(MachineError, match="a name is one machine's"):
        change_all_machines(database, {"name": "Saw"})


def test_all_machines_get_a_zone_at_once(database):
    changes = change_all_machines(database, {"time_zone": "Europe/Berlin"})

    assert sorted(changes.changed) == [1, 2]
    assert {row[4] for row in described(database)} == {"Europe/Berlin"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"time_zone": "Berlin"}, "time_zone is 'Berlin', which does not exist"),
        ({"time_zone": ""}, "time_zone is empty"),
        ({"name": " "}, "name is empty"),
        ({"max_power_kw": "-3"}, "max_power_kw is '-3': write a number above 0, or nothing"),
        ({"max_power_kw": "much"}, "max_power_kw is 'much'"),
        ({"rolls_over_at": "inf"}, "rolls_over_at is 'inf'"),
        ({"max_power_kw": "nan"}, "max_power_kw is 'nan'"),
        ({"alert_budget": "2000"}, "above 0 and at most 1000"),
        ({"holidays": "XX"}, "there is no holiday calendar 'XX'"),
        ({"active_from": "soon"}, "'soon'"),
        ({"active_from": "2026-02-01", "active_to": "2026-01-01"}, "would be in use from"),
    ],
)
def test_what_makes_no_sense_is_named_and_nothing_is_changed(database, fields, message):
    before = described(database)

    with pytest.raises(Exception, match=message) as refused:
        change_machine(database, "1", {"site": "Hall 2"} | fields)

    assert "\n" not in str(refused.value)
    assert described(database) == before


def test_a_file_changes_and_adds_machines_before_their_first_reading(database):
    changes = import_machines(
        database,
        [
            {"source_key": "machine_2", "name": "Press", "alert_budget": "0.5"},
            {"source_key": "Pump 7", "name": "Pump", "time_zone": "", "machine_id": ""},
            {"machine": "1", "name": "Saw", "holidays": "DE-BW"},
        ],
        "Europe/Berlin",
    )

    assert changes.added == [3]
    assert [row[:5] for row in described(database)] == [
        (1, "machine_1", "Saw", "", "UTC"),
        (2, "machine_2", "Press", "", "UTC"),
        (3, "Pump 7", "Pump", "", "Europe/Berlin"),
    ]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"machine": "9"}, "row 3: no machine is called '9'"),
        ({"name": "Saw"}, "row 3: no machine is named"),
        ({"source_key": "machine_1", "name": "b"}, "row 3: machine 1 stands in row 2 already"),
        ({"source_key": "new", "machine_id": "1"}, "row 3: machine_id 1 is another machine's"),
        ({"source_key": "new", "machine_id": "x"}, "row 3: machine_id is 'x'"),
        ({"source_key": "new", "machine_id": "2147483647"}, "row 3: .* a whole number from 1 to"),
        ({"source_key": " new"}, "row 3: source_key is ' new': remove the spaces around it"),
        ({"source_key": "machine_2", "machine_id": "1"}, "'machine_2' is machine 2: correct one"),
    ],
)
def test_a_wrong_row_of_a_file_is_named_and_nothing_is_changed(database, row, message):
    before = described(database)

    with pytest.raises(MachineError, match=message) as refused:
        import_machines(database, [{"source_key": "machine_1", "name": "a"}, row], "UTC")

    assert "nothing was changed" in str(refused.value)
    assert described(database) == before


def test_what_list_writes_is_what_import_reads(database, command_line, tmp_path):
    environment = {
        "ANOMALY_DATABASE_URL": database.engine.url.render_as_string(hide_password=False)
    }

    def anomaly(*arguments):
        return command_line.run([*arguments], environment)

    assert anomaly("machines", "set", "1", "--name", "Säge, alt", "--site", "A").returncode == 0
    listed = anomaly("machines", "list", "--csv").stdout
    file = tmp_path / "machines.csv"
    file.write_text(listed.replace("machine_2,machine_2", "machine_2,Press"), encoding="utf-8")
    found = anomaly("machines", "import", str(file), "--json")

    assert json.loads(found.stdout)["changed"] == {"2": {"name": "Press"}}
    assert [row[2] for row in described(database)] == ["Säge, alt", "Press"]
    assert "nothing is to be changed" in anomaly("machines", "set", "1").stderr
    assert "write one machine, or --all" in anomaly("machines", "set", "--site", "A").stderr
    file.write_text("machine,colour\n1,red\n")
    assert "has a column 'colour'" in anomaly("machines", "import", str(file)).stderr
    file.write_text("machine,name\n1\n")
    assert "row 2: it has not as many cells" in anomaly("machines", "import", str(file)).stderr
