"""What a time without a zone means: against the standard library, and row by row."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomaly.readings import local_clocks
from anomaly.readings.local_clocks import Rows, is_skipped, possible_moments, utc_of_rows

BERLIN = ZoneInfo("Europe/Berlin")
QUARTER = timedelta(minutes=15)
ZONES = (
    "Europe/Berlin", "Europe/Dublin", "America/Chicago", "America/St_Johns", "Australia/Lord_Howe",
    "Pacific/Chatham", "Asia/Kathmandu", "Africa/Casablanca", "America/Santiago", "UTC",
)  # fmt: skip
FIRST, SECOND = datetime(2025, 10, 26, 0, tzinfo=UTC), datetime(2025, 10, 26, 1, tzinfo=UTC)


def by_standard_library(local, zone):
    """Moments at which the clock shows a time: each offset is tried."""
    tried = {local.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1)}
    return sorted(at for at in tried if at.astimezone(zone).replace(tzinfo=None) == local)


@given(
    zone=st.sampled_from(ZONES),
    number=st.integers(0, 200),
    minutes=st.integers(-200, 200),
    off=st.sampled_from([-60, -30, 0, 30, 60]),
)
def test_a_local_time_means_the_moments_at_which_the_clock_shows_it(zone, number, minutes, off):
    clock = ZoneInfo(zone)
    found = local_clocks.changes(
        clock, datetime(1975, 1, 1, tzinfo=UTC), datetime(2037, 1, 1, tzinfo=UTC)
    )
    changes = [change.at for change in found] or [datetime(2020, 6, 1, tzinfo=UTC)]
    at = changes[number % len(changes)] + timedelta(minutes=minutes)
    local = local_clocks.local_time(at, clock) + timedelta(minutes=off)

    found = possible_moments(local, clock)

    expected = by_standard_library(local, clock)
    assert bool(is_skipped(local_clocks.as_local([local]), clock)[0]) == (not expected)
    if expected:
        assert found == expected
    else:
        (moment,) = found
        assert local_clocks.local_time(moment - QUARTER, clock) <= local + timedelta(hours=1)


def placed(local, readings, written=None, *, counters=True, ends=False, machine=None):
    """The moments of rows, each one reading."""
    known = [
        local_clocks.UNKNOWN if at is None else int(at.timestamp() * 1e6) for at in written or []
    ]
    rows = Rows(
        np.array([readings], dtype=float).T if machine is None else np.array([readings]).T,
        np.array(known or [local_clocks.UNKNOWN] * len(readings), dtype=np.int64),
        machine,
    )
    stamps = local_clocks.as_local([datetime(2025, 10, 26, *time) for time in local])
    found = utc_of_rows(stamps, BERLIN, rows, QUARTER, counters=counters, ends=ends)
    return [at.replace(tzinfo=UTC) for at in found.tolist()]


@pytest.mark.parametrize("order", [1, -1])
def test_of_two_counts_of_one_time_the_lower_is_the_first_hours(order):
    assert placed([(2, 0)] * 2, [5, 9][::order]) == [FIRST, SECOND][::order]


def test_a_row_written_before_the_clock_shows_its_time_again_is_the_first_hours():
    soon = FIRST + timedelta(minutes=16)

    assert placed([(2, 0)], [5], [soon]) == [FIRST]
    assert placed([(2, 0)] * 3, [5, 6, 4], [soon, soon, SECOND]) == [FIRST, FIRST, SECOND]


def test_a_row_alone_that_may_be_of_either_hour_is_the_seconds():
    assert placed([(2, 0)], [5]) == [SECOND]
    assert placed([(2, 0)], [5], [SECOND + QUARTER]) == [SECOND]


def test_of_two_powers_the_one_written_earlier_is_the_first_hours():
    written = [SECOND + QUARTER, SECOND + 2 * QUARTER]

    assert placed([(2, 0)] * 2, [9, 5], written, counters=False) == [FIRST, SECOND]


def test_of_two_rows_that_are_equal_each_hour_has_one():
    assert sorted(placed([(2, 0)] * 2, [5, 5])) == [FIRST, SECOND]


def test_a_row_without_a_reading_tells_nothing():
    assert placed([(2, 0)] * 2, [np.nan, 5])[1] == SECOND


def test_ends_written_as_their_starts_show_them_run_to_the_end_of_the_doubled_hour():
    times = [(2, 0), (2, 15), (3, 0), (2, 15), (3, 0)]

    found = placed(times, [1, 2, 3, 4, 5], ends=True)

    hour = timedelta(hours=1)
    assert found == [FIRST, FIRST + QUARTER, SECOND, SECOND + QUARTER, SECOND + hour]


def test_wide_rows_are_told_apart_whole_by_what_all_of_them_have():
    rows = Rows(
        np.array([[7.0, np.nan], [5.0, 100.0]]),
        np.full(2, local_clocks.UNKNOWN, dtype=np.int64),
        None,
    )
    stamps = local_clocks.as_local([datetime(2025, 10, 26, 2)] * 2)

    found = utc_of_rows(stamps, BERLIN, rows, QUARTER, counters=True, ends=False)

    assert [at.replace(tzinfo=UTC) for at in found.tolist()] == [SECOND, FIRST]


def test_time_shown_twice_is_two_hours_in_autumn_and_none_in_spring():
    day = timedelta(days=1)

    assert local_clocks.time_shown_twice(BERLIN, SECOND - day, SECOND + day) == timedelta(hours=2)
    assert local_clocks.time_shown_twice(BERLIN, SECOND + day, SECOND + 200 * day) == timedelta(0)
