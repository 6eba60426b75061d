"""Windows: half-open ranges in UTC."""

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomaly.errors import WindowError
from anomaly.windows import Window, ceil_to_interval, floor_to_interval, parse_moment, spans

QUARTER = timedelta(minutes=15)
moments = st.datetimes(datetime(2015, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))


@given(moments, moments, st.timedeltas(timedelta(minutes=1), timedelta(days=400)))
def test_chunks_cover_a_window_without_gap_or_overlap(one, other, longest):
    start, end = sorted([one, other])
    longest = max(longest, (end - start) / 500)
    if start == end:
        return
    chunks = list(Window(start, end).chunks(longest))

    assert chunks[0].start == start
    assert chunks[-1].end == end
    assert all(a.end == b.start for a, b in itertools.pairwise(chunks))
    assert all(chunk.end - chunk.start <= longest for chunk in chunks)


@given(moments)
def test_floor_and_ceiling_enclose_a_moment(moment):
    floor, ceiling = floor_to_interval(moment, QUARTER), ceil_to_interval(moment, QUARTER)

    assert floor <= moment <= ceiling
    assert ceiling - floor in (timedelta(0), QUARTER)
    assert floor.minute % 15 == floor.second == 0


@given(st.lists(moments, max_size=30))
def test_spans_hold_every_moment_and_do_not_overlap(wanted):
    found = spans(wanted, QUARTER, timedelta(days=7))

    assert all(any(moment in span for span in found) for moment in wanted)
    assert all(a.start < b.start for a, b in itertools.pairwise(found))


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        ("2017-03-08", "2017-03-07", "is empty"),
        ("2017-03-07", "2017-03-07", "is empty"),
        ("yesterday", "2017-03-07", "'yesterday' is not a date or time"),
        ("2017-03-07T04:45", "2017-03-08", "has no time zone: write 2017-03-07T04:45Z"),
    ],
)
def test_a_bad_range_is_refused_with_what_to_write(start, end, message):
    with pytest.raises(WindowError, match=message):
        Window.parse(start, end)


def test_the_due_part_of_a_window_ends_at_the_last_complete_interval():
    window = Window.parse("2017-03-07", "2017-03-09")

    due = window.due(parse_moment("2017-03-08T10:07Z"), QUARTER)

    assert due.end == parse_moment("2017-03-08T10:00Z")
    with pytest.raises(WindowError, match="is not due yet"):
        window.due(parse_moment("2017-03-07T00:14Z"), QUARTER)
