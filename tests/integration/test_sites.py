"""What people say of sites, and what the views make of it."""

import json
from contextlib import closing
from datetime import UTC, date, datetime

import numpy as np
import psycopg2
import pytest

from anomaly.database.connection import SCORER
from anomaly.database.results import Origin
from anomaly.database.scoring_runs import lock_publishing
from anomaly.database.sites import list_prices
from anomaly.errors import SiteError
from anomaly.operations.machine_changes import change_machine
from anomaly.operations.machine_removal import remove_machine
from anomaly.operations.purging import purge
from anomaly.operations.site_changes import change_price, change_shifts, forget_price
from anomaly.scoring.publishing import Job
from anomaly.scoring.scorer import Scorer
from anomaly.windows import Window
from deployment import TESTS, at, counters, execute, insert, rows, score, train, train_in_force

DAY = 96
MOVED = at(0) - datetime(2026, 1, 1, tzinfo=UTC)
"""So that the first verdict is on New Year's Day, a Thursday."""


@pytest.fixture
def scored(database, settings):
    """Three days of two machines; machine 1 stands in Hall 1, machine 2 nowhere."""
    insert(database, counters(10 * DAY))
    train(database, settings)
    score(database, settings, 0, 3 * DAY)
    change_machine(database, "1", {"site": "Hall 1"})
    return database


def costs(database, machine: int) -> list[tuple]:
    return rows(
        database,
        "SELECT round(cost / energy_kwh * 1e6) / 1e6, currency FROM bi.machine_days"
        " WHERE machine_id = :machine ORDER BY local_date",
        machine=machine,
    )


# Prices -------------------------------------------------------------------------


def test_a_site_has_its_own_price_from_its_first_day_on_and_before_that_the_general_one(scored):
    change_price(scored, None, 0.2, "eur", date(2026, 1, 1))
    change_price(scored, None, 0.4, "EUR", date(2026, 3, 4))
    change_price(scored, "Hall 1", 0.3, "EUR", date(2026, 3, 3))

    assert costs(scored, 1) == [(0.2, "EUR"), (0.3, "EUR"), (0.3, "EUR")]
    assert costs(scored, 2) == [(0.2, "EUR"), (0.2, "EUR"), (0.4, "EUR")]


def test_without_a_price_there_is_no_cost_and_a_price_can_be_replaced_and_forgotten(scored):
    change_price(scored, "Hall 1", 0.1, "EUR", date(2026, 3, 3))
    change_price(scored, "Hall 1", 0.3, "CHF", date(2026, 3, 3))
    assert costs(scored, 1) == [(None, None), (0.3, "CHF"), (0.3, "CHF")]

    forget_price(scored, "Hall 1", date(2026, 3, 3))

    assert costs(scored, 1) == [(None, None)] * 3
    with pytest.raises(SiteError, match=r"no price was set for the site 'Hall 1' from 2026-03-03"):
        forget_price(scored, "Hall 1", date(2026, 3, 3))


@pytest.mark.parametrize(
    ("site", "price", "currency", "message"),
    [
        ("Hal 1", 0.2, "EUR", r"no machine has the site 'Hal 1': write one of 'Hall 1'"),
        ("", 0.2, "EUR", r"no machine has the site ''"),
        ("Hall 1", float("nan"), "EUR", r"the price is nan"),
        ("Hall 1", 1e9, "EUR", r"the price is 1000000000.0"),
        ("Hall 1", 0.2, "Euro", r"the currency is 'EURO'"),
        ("Hall 1'; --", 0.2, "EUR", r"no machine has the site"),
    ],
)
def test_a_price_that_makes_no_sense_is_refused(scored, site, price, currency, message):
    with pytest.raises(SiteError, match=message):
        change_price(scored, site, price, currency, date(2026, 3, 3))

    with scored.transaction(SCORER) as transaction:
        assert list_prices(transaction) == []


# Shifts -------------------------------------------------------------------------


def shifts(database, machine: int) -> dict[int, str | None]:
    return dict(
        rows(
            database,
            "SELECT DISTINCT hour, shift FROM bi.machine_hours WHERE machine_id = :machine",
            machine=machine,
        )
    )


def test_shifts_reach_over_midnight_and_a_site_may_have_its_own(scored):
    change_shifts(scored, None, ["day 06:00-22:00", "night 22:00-6:00"])
    change_shifts(scored, "Hall 1", ["only shift 8:00 - 24:00"])

    assert shifts(scored, 2) == {h: "day" if 6 <= h < 22 else "night" for h in range(24)}
    assert shifts(scored, 1) == {h: "only shift" if h >= 8 else None for h in range(24)}

    change_shifts(scored, "Hall 1", [])

    assert shifts(scored, 1) == shifts(scored, 2)


@pytest.mark.parametrize("wrong", ["early", "6:00-14:00", "early 6-14", "early 25:00-26:00", ""])
def test_a_shift_that_makes_no_sense_is_refused(scored, wrong):
    with pytest.raises(SiteError, match=r"is no shift: write its name, start and end"):
        change_shifts(scored, "Hall 1", ["night 22:00-06:00", wrong])

    assert set(shifts(scored, 1).values()) == {None}


# The command --------------------------------------------------------------------


def test_the_commands_say_what_they_did_and_a_mistake_is_one_line(scored, command_line):
    url = {"ANOMALY_DATABASE_URL": scored.engine.url.render_as_string(hide_password=False)}

    def run(*words):
        return command_line.run(["sites", *words], url)

    said = run("price", "Hall 1", "--price", "0.21", "--from", "2026-01-01")
    every = run("price", "--all", "--price", "0.2", "--currency", "chf", "--json")
    run("shifts", "Hall 1", "early 06:00-14:00", "late 14:00-22:00")
    listed = json.loads(run("list", "--json").stdout)
    wrong = [run("price", "Hall 1"), run("price", "--price", "1"), run("shifts"),
             run("price", "--all", "--price", "1", "--from", "1.1.2026")]  # fmt: skip

    assert said.stdout == "site Hall 1: 0.21 EUR per kWh from 2026-01-01 on\n"
    assert json.loads(every.stdout)["currency"] == "CHF"
    hall = next(site for site in listed if site["site"] == "Hall 1")
    assert (hall["machines"], hall["price_per_kwh"], hall["currency"]) == (1, 0.21, "EUR")
    assert hall["shifts"] == "early 06:00-14:00, late 14:00-22:00"
    for done in wrong:
        assert done.returncode == 1
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1
    assert len(run("prices", "--csv").stdout.splitlines()) == 3
    assert "0.21" in run("list").stdout, "a table shows every digit of a price"


# Machines -----------------------------------------------------------------------


def test_sites_keep_their_numbers(scored):
    numbers = dict(rows(scored, "SELECT site, site_id FROM bi.sites"))

    change_machine(scored, "2", {"site": "Hall 0"})
    change_machine(scored, "1", {"site": "Hall 0"})
    change_machine(scored, "1", {"site": "Hall 1"})

    now = dict(rows(scored, "SELECT site, site_id FROM bi.sites"))
    assert now.items() >= numbers.items()
    assert len(set(now.values())) == len(now) == 3


def test_another_clock_moves_days_at_once_and_an_unknown_one_stops_nothing(scored, settings):
    first = "SELECT min(local_date)::text, count(*) FROM bi.machine_days WHERE machine_id = 1"
    assert rows(scored, first) == [("2026-03-02", 3)]

    change_machine(scored, "1", {"time_zone": "America/New_York"})
    assert rows(scored, first) == [("2026-03-01", 4)]

    execute(scored, "UPDATE anomaly.machines SET time_zone = 'Mars/Olympus' WHERE machine_id = 1")
    assert rows(scored, first) == [("2026-03-02", 3)]
    assert score(scored, settings, 3 * DAY, 4 * DAY).inserted == 2 * DAY
    assert rows(scored, first) == [("2026-03-02", 4)]


def test_a_clock_is_not_changed_while_verdicts_are_published(scored):
    url = scored.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    change = "UPDATE anomaly.machines SET time_zone = 'Asia/Tokyo' WHERE machine_id = 1"
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute("SET lock_timeout = '200ms'")
        with scored.transaction(SCORER) as publishing:
            lock_publishing(publishing)
            with pytest.raises(psycopg2.errors.LockNotAvailable):
                cursor.execute(change)
        connection.rollback()
        cursor.execute(change)
        connection.commit()


def test_sums_go_with_their_machine_and_stay_when_verdicts_are_purged(database, settings):
    insert(database, counters(70 * DAY))
    train(database, settings)
    score(database, settings, 0, 70 * DAY)
    sums = "SELECT count(*), round(sum(energy_kwh)) FROM bi.machine_days WHERE machine_id = :m"
    before = rows(database, sums, m=2)

    purged = purge(
        database, settings.changed(keep_results_months=1, reconcile_days=1).retention, at(70 * DAY)
    )
    change_machine(database, "2", {"name": "Saw"})
    remove_machine(database, "1", with_verdicts=True)

    assert purged.months_of_results > 0
    assert rows(database, sums, m=2) == before
    for table in ("machine_hours", "machine_days"):
        assert rows(
            database, f"SELECT DISTINCT machine_id FROM anomaly.{table}"
        ) == [(2,)]  # fmt: skip


def purged_to_march(database, settings) -> None:
    """Ten weeks from 2 March on, of which those of March are deleted."""
    insert(database, counters(70 * DAY))
    train(database, settings)
    score(database, settings, 0, 70 * DAY)
    kept = settings.changed(keep_results_months=1, reconcile_days=1).retention
    assert purge(database, kept, at(70 * DAY)).months_of_results == 1


SUMS = (
    "SELECT machine_id, count(*), sum(readings), round(CAST(sum(energy_kwh) AS numeric), 6)"
    " FROM bi.{} GROUP BY machine_id ORDER BY machine_id"
)


def sums(database) -> list[list[tuple]]:
    return [rows(database, SUMS.format(view)) for view in ("machine_hours", "machine_days")]


def test_scoring_a_part_of_a_purged_hour_again_leaves_its_sums(database, settings):
    purged_to_march(database, settings)
    before = sums(database)

    score(database, settings, 10 * DAY + 42, 10 * DAY + 50)  # from 10:30 to 12:30

    assert sums(database) == before


def test_another_clock_loses_no_day_at_the_edge_of_what_was_purged(database, settings):
    purged_to_march(database, settings)

    for zone in ("America/New_York", "Asia/Kolkata", "Pacific/Auckland", "UTC"):
        change_machine(database, "1", {"time_zone": zone})
        hours, days = sums(database)
        assert [row[2:] for row in hours] == [row[2:] for row in days], zone
        assert hours[0][2] == 70 * DAY


def test_the_usual_energy_of_a_day_does_not_take_a_gap_at_the_power_of_its_end(database, settings):
    frame = counters(20 * DAY)
    quarter = np.arange(20 * DAY) % DAY
    power = np.where((quarter >= 32) & (quarter < 64), 50.0, 2.0)  # from 8 to 16 h
    noise = np.random.default_rng(4).normal(1, 0.02, len(power))
    frame["machine_1"] = (power * noise / 4).cumsum().round(3)
    frame.loc[18 * DAY + 65 : 19 * DAY + 36, "machine_1"] = np.nan  # from 16:15 to 9:15
    insert(database, frame)
    settings = settings.changed(detector="signals")
    train(database, settings, 17 * DAY)
    score(database, settings, 17 * DAY, 20 * DAY)

    ((energy, expected, hours, excess, power_hours),) = rows(
        database,
        "SELECT energy_kwh, expected_kwh, expected_hours, excess_kwh, power_hours"
        " FROM bi.machine_days WHERE machine_id = 1 AND local_date = '2026-03-21'",
    )
    assert energy == pytest.approx(8 * 50 + 16 * 2 + 8 * 2, abs=15)
    assert expected == pytest.approx((16 - 9.5) * 50 + 8 * 2, abs=15)
    assert hours == pytest.approx(14.5, abs=0.3)
    assert power_hours > 24
    assert abs(excess) < 15


def test_every_day_of_a_fact_is_in_the_calendar(database, settings):
    insert(database, counters(10 * DAY).assign(utc_timestamp=lambda f: f["utc_timestamp"] - MOVED))
    train_in_force(database, settings, Window(at(0) - MOVED, at(8 * DAY) - MOVED))
    Scorer(database, settings).score_range(
        Window(at(0) - MOVED, at(10 * DAY) - MOVED), Job(Origin.BACKFILL, TESTS)
    )

    for view in ("machine_hours", "machine_days", "alerts_weekly", "incidents", "verdicts"):
        lost = rows(
            database,
            f"SELECT DISTINCT date_key FROM bi.{view}"
            " WHERE date_key NOT IN (SELECT date_key FROM bi.calendar)",
        )
        assert lost == [], view
    assert (20251229,) in rows(database, "SELECT date_key FROM bi.alerts_weekly")


# Holidays -----------------------------------------------------------------------


def test_holidays_are_those_that_training_knows(database, settings):
    insert(database, counters(10 * DAY))
    settings = settings.changed(holidays="DE")
    train(database, settings)
    execute(database, "UPDATE anomaly.machines SET holidays = 'GB' WHERE machine_id = 2")
    train(database, settings)
    score(database, settings, 0, 3 * DAY)

    calendar = dict(
        rows(database, "SELECT date, holiday FROM bi.calendar WHERE holiday IS NOT NULL")
    )
    assert "Christmas Day" in calendar[date(2026, 12, 25)] or calendar[date(2026, 12, 25)]
    assert date(2026, 10, 3) in calendar
    assert rows(database, "SELECT count(*) FROM anomaly.holidays WHERE calendar = 'GB'") > [(50,)]
    assert rows(database, "SELECT DISTINCT holiday FROM bi.machine_days") == [(None,)]
