"""Local hours and days of clocks that change at odd times, against Python's own time zones."""

import random
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from deployment import execute, rows

ZONES = [
    "Europe/Berlin",
    "Atlantic/Azores",  # midnight is shown twice
    "America/Havana",  # twice, and skipped
    "Asia/Beirut",  # skipped, and 23:00 shown twice
    "Africa/Cairo",
    "Australia/Lord_Howe",  # by half an hour
    "Antarctica/Troll",  # by two hours
    "Asia/Kathmandu",  # 45 minutes beside whole hours
    "America/St_Johns",
    "UTC",
]
QUARTER = timedelta(minutes=15)
NIGHTS = [  # each spans a change of some of these clocks
    (datetime(2026, 3, 6, tzinfo=UTC), datetime(2026, 3, 10, tzinfo=UTC)),
    (datetime(2026, 3, 27, tzinfo=UTC), datetime(2026, 4, 7, tzinfo=UTC)),
    (datetime(2026, 4, 22, tzinfo=UTC), datetime(2026, 4, 26, tzinfo=UTC)),
    (datetime(2026, 10, 2, tzinfo=UTC), datetime(2026, 10, 6, tzinfo=UTC)),
    (datetime(2026, 10, 23, tzinfo=UTC), datetime(2026, 11, 3, tzinfo=UTC)),
]
STAMPS = [
    start + number * QUARTER for start, end in NIGHTS for number in range((end - start) // QUARTER)
]


@pytest.fixture
def judged(database):
    """A verdict of 1 kWh every quarter of an hour for a machine of each zone, not summed yet."""
    execute(database, "SELECT anomaly.ensure_partitions('2026-03-01Z', '2026-12-01Z')")
    for number, zone in enumerate(ZONES, start=1):
        execute(
            database,
            "INSERT INTO anomaly.machines (machine_id, source_key, name, time_zone)"
            " VALUES (:number, :zone, :zone, :zone)",
            number=number,
            zone=zone,
        )
    execute(
        database,
        "INSERT INTO anomaly.anomaly_results (machine_id, utc_timestamp, reading, power_kw,"
        " anomaly_score, threshold, anomaly, quality, origin, model_version, run_id, scored_at,"
        " features_version, energy_kwh, energy_hours)"
        " SELECT m, t, 1, 4, 0.1, 0.5, 0, 'ok', 'live', 1, 1, t, 2, 1, 0.25"
        " FROM unnest(CAST(:stamps AS timestamptz[])) AS t, generate_series(1, :machines) AS m",
        stamps=STAMPS,
        machines=len(ZONES),
    )
    return database


def summed(database, machine: int, first: datetime, last: datetime) -> None:
    execute(
        database,
        "SELECT anomaly.refresh_sums(ARRAY[CAST(:machine AS integer)],"
        " ARRAY[CAST(:first AS timestamptz)], ARRAY[CAST(:last AS timestamptz)])",
        machine=machine,
        first=first,
        last=last,
    )


def local_hour(stamp: datetime, zone: str) -> datetime:
    """When the hour of a clock began in which a moment lies."""
    return stamp - timedelta(minutes=stamp.astimezone(ZoneInfo(zone)).minute)


def test_every_order_of_sums_gives_the_hours_and_days_of_the_clock(judged):
    draw = random.Random(7)
    for number, zone in enumerate(ZONES, start=1):
        windows = [STAMPS[place : place + 3] for place in range(0, len(STAMPS), 3)]
        draw.shuffle(windows)
        with judged.engine.begin() as connection:
            for window in windows:
                connection.exec_driver_sql(
                    "SELECT anomaly.refresh_sums(ARRAY[%s], ARRAY[%s::timestamptz],"
                    " ARRAY[%s::timestamptz])",
                    (number, window[0], window[-1]),
                )

        found = dict(
            rows(
                judged,
                "SELECT hour_start, readings FROM bi.machine_hours WHERE machine_id = :number",
                number=number,
            )
        )
        assert found == Counter(local_hour(stamp, zone) for stamp in STAMPS), zone
        days = dict(
            rows(
                judged,
                "SELECT local_date, energy_kwh FROM bi.machine_days WHERE machine_id = :number",
                number=number,
            )
        )
        assert days == Counter(stamp.astimezone(ZoneInfo(zone)).date() for stamp in STAMPS), zone


def test_a_day_has_the_hours_that_its_clock_shows(judged):
    for number, zone in enumerate(ZONES, start=1):
        summed(judged, number, STAMPS[0], STAMPS[-1])
        whole = quarters_of_days(zone)
        found = dict(
            rows(
                judged,
                "SELECT local_date, day_hours FROM bi.machine_days WHERE machine_id = :number",
                number=number,
            )
        )
        assert found == {day: whole[day] / 4 for day in found}, zone
        assert zone in ("UTC", "Asia/Kathmandu") or set(found.values()) > {24}, zone


def quarters_of_days(zone: str) -> Counter[date]:
    return Counter(
        (NIGHTS[0][0] + number * QUARTER - timedelta(days=2)).astimezone(ZoneInfo(zone)).date()
        for number in range((NIGHTS[-1][1] - NIGHTS[0][0] + timedelta(days=4)) // QUARTER)
    )


def test_minutes_of_incidents_over_such_a_night_belong_to_their_days_and_hours(judged):
    incidents = [(start + 3 * QUARTER, end - 5 * QUARTER) for start, end in NIGHTS]
    stamps = [
        began + place * QUARTER
        for began, ended in incidents
        for place in range((ended - began) // QUARTER)
    ]
    for number, zone in enumerate(ZONES, start=1):
        summed(judged, number, STAMPS[0], STAMPS[-1])
        execute(
            judged,
            "INSERT INTO anomaly.incidents (machine_id, kind, started_at, ended_at, last_at,"
            " told_at, severity, reason, state, origin, opened_at, updated_at)"
            " SELECT :number, 'machine', began, ended, began, began, 'notice', 'odd',"
            " 'closed', 'live', now(), now()"
            " FROM unnest(CAST(:began AS timestamptz[]), CAST(:ended AS timestamptz[]))"
            " AS i (began, ended)",
            number=number,
            began=[began for began, _ in incidents],
            ended=[ended for _, ended in incidents],
        )
        for view, key, of in (
            ("machine_days", "local_date", lambda t, z=zone: t.astimezone(ZoneInfo(z)).date()),
            ("machine_hours", "hour_start", lambda t, z=zone: local_hour(t, z)),
        ):
            found = dict(
                rows(
                    judged,
                    f"SELECT {key}, incident_minutes FROM bi.{view}"
                    " WHERE machine_id = :number AND incident_minutes > 0",
                    number=number,
                )
            )
            expected = Counter(of(stamp) for stamp in stamps)
            assert found == {place: 15 * total for place, total in expected.items()}, (view, zone)


def test_an_incident_over_two_changes_of_a_clock_fills_each_of_its_hours(judged):
    zone = "Australia/Lord_Howe"
    number = ZONES.index(zone) + 1
    (began, _), (_, ended) = NIGHTS[1], NIGHTS[3]  # April and October, each by half an hour
    summed(judged, number, STAMPS[0], STAMPS[-1])
    execute(
        judged,
        "INSERT INTO anomaly.incidents (machine_id, kind, started_at, ended_at, last_at, told_at,"
        " severity, reason, state, origin, opened_at, updated_at)"
        " VALUES (:number, 'machine', :began, :ended, :began, :began, 'notice', 'odd', 'closed',"
        " 'live', now(), now())",
        number=number,
        began=began,
        ended=ended,
    )
    within = Counter(
        local_hour(began + place * QUARTER, zone) for place in range((ended - began) // QUARTER)
    )

    found = rows(
        judged,
        "SELECT hour_start, incident_minutes FROM bi.machine_hours WHERE machine_id = :number",
        number=number,
    )

    assert dict(found) == {hour: 15 * within[hour] for hour, _ in found}
    assert set(within.values()) >= {2, 4}


def test_an_incident_that_lasts_counts_to_the_end_of_its_last_abnormal_interval(judged):
    summed(judged, 1, STAMPS[0], STAMPS[-1])
    last = STAMPS[0] + 7 * QUARTER
    execute(
        judged,
        "INSERT INTO anomaly.scoring_runs (run_id, window_start, window_end, written_from,"
        " written_to, origin, command, package_version, meter_interval) VALUES (1, :end, :end,"
        " :end, :end, 'live', 'test', '', '15 minutes')",
        end=STAMPS[-1],
    )
    execute(
        judged,
        "INSERT INTO anomaly.incidents (machine_id, kind, started_at, last_at, told_at, severity,"
        " reason, state, origin, opened_at, updated_at) VALUES (1, 'machine', :began, :last, :last,"
        " 'notice', 'odd', 'open', 'live', now(), now())",
        began=STAMPS[0],
        last=last,
    )
    ((hours,),) = rows(judged, "SELECT duration_hours FROM bi.incidents")
    ((minutes,),) = rows(judged, "SELECT sum(incident_minutes) FROM bi.machine_days")
    assert (hours, minutes) == (2, 120)
