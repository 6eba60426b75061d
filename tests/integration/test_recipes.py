"""The SQL of the how-to pages runs on a real Postgres, as a reader would run it."""

import re
import shlex
from pathlib import Path
from textwrap import dedent

import pytest

from deployment import counters, execute, insert, rows, score, train

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to"
DAY = 96


def recipes(page):
    """The SQL blocks of a page, in their order."""
    text = (HOW_TO / f"{page}.md").read_text(encoding="utf-8")
    return [dedent(block) for block in re.findall(r"^ *```sql\n(.*?)^ *```", text, re.S | re.M)]


@pytest.fixture
def scored(database, settings):
    insert(database, counters(10 * DAY))
    train(database, settings)
    score(database, settings, 0, DAY)
    return database


@pytest.fixture
def dashboard(scored):
    execute(scored, "CREATE ROLE plant_dashboard")
    yield "plant_dashboard"
    for role in ("plant_dashboard", "reporting"):
        execute(scored, f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")


def test_a_view_of_ones_own_is_read_without_a_right_on_bi(scored, dashboard):
    role, view, _ = recipes("new-bi-view")
    execute(scored, role)
    execute(scored, view)

    execute(scored, f"SET LOCAL ROLE {dashboard}; SELECT * FROM reports.incidents_per_week")


def test_a_view_of_the_product_gives_energy_per_site_and_day(scored):
    *_, view = recipes("new-bi-view")
    execute(scored, view)

    assert rows(scored, "SELECT sum(readings) FROM bi.energy_per_site") == [(2 * DAY,)]


def test_the_query_for_new_incidents_runs(scored):
    (query,) = recipes("alerting")
    execute(scored, query.replace(":since", "now()"))


def test_a_machine_gets_another_name_in_every_view(scored, command_line):
    page = (HOW_TO / "rename-a-machine.md").read_text(encoding="utf-8")
    command = re.search(r"^anomaly (machines set .*)$", page, re.M)
    url = scored.engine.url.render_as_string(hide_password=False)
    words = shlex.split(command[1].replace("Saw", "machine_1"))
    done = command_line.run(words, {"ANOMALY_DATABASE_URL": url})
    assert done.returncode == 0, done.stderr

    assert rows(scored, "SELECT machine FROM bi.latest WHERE machine_id = 1") == [("Band saw",)]
