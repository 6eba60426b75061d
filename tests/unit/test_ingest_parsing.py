"""A CSV file is read exactly, or refused with file, line, column, value and next step."""

import gzip
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis_profiles import PROPERTY

from anomaly.errors import IngestError
from anomaly.loading import text_files
from anomaly.loading.files import read_readings
from anomaly.readings.record import RECORD
from anomaly.settings import Settings, load_settings

HEADER = "utc_timestamp,machine_1,machine_2\n"
ROW = "2017-03-07T04:45:00Z,1.5,2.5\n"
START = datetime(2017, 3, 7, tzinfo=UTC)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Name of a file that does not exist yet."""
    return tmp_path / "readings.csv"


def refusal(file: Path, content: str | bytes, settings: Settings) -> str:
    """Write a file that cannot be read and return the error without the folder."""
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(IngestError) as error:
        read_readings(file, settings.meter_table, settings.meter)
    return str(error.value).removeprefix(f"{file.parent}/")


def wide(readings: list[float], *, start: datetime = START) -> str:
    """A file in which machine 1 has these readings, a quarter-hour apart."""
    lines = [
        f"{(start + n * timedelta(minutes=15)).isoformat()},{reading}\n"
        for n, reading in enumerate(readings)
    ]
    return "utc_timestamp,machine_1\n" + "".join(lines)


def long_settings(source_timezone: str = "") -> Settings:
    return load_settings(
        {},
        source_timezone=source_timezone,
        source_layout="long",
        source_table="readings",
        source_timestamp_column="time",
        source_machine_column="machine",
        source_value_column="kwh",
        source_ingested_at_column="arrived",
    )


# What is read -------------------------------------------------------------


def test_readings_come_out_in_the_order_of_the_record(file: Path, settings: Settings) -> None:
    file.write_text("machine_2,utc_timestamp,area_offices\n1.5,2017-03-07T04:45:00Z,3\n")

    readings = read_readings(file, settings.meter_table, settings.meter)

    assert list(readings.columns) == ["utc_timestamp", "area_offices", "machine_2"]
    assert readings.iloc[0, 1:].tolist() == [3.0, 1.5]


def test_the_whole_record_of_22_fields_is_accepted(file: Path, settings: Settings) -> None:
    local = "2017-03-07T05:45:00+0100"
    file.write_text(",".join(RECORD) + f"\n2017-03-07T04:45:00Z,{local}" + ",1" * 20 + "\n")

    readings = read_readings(file, settings.meter_table, settings.meter)

    assert list(readings.columns) == list(RECORD)
    assert readings["cet_cest_timestamp"].tolist() == [local]


def test_rows_are_indexed_by_the_line_an_editor_shows(file: Path, settings: Settings) -> None:
    quoted = '"2017-03-07T05:00:00Z","\n1.5",2\n'
    file.write_text(HEADER + "\n\n" + ROW + quoted + ROW.replace("04:45", "05:15"))

    readings = read_readings(file, settings.meter_table, settings.meter)

    assert readings.index.tolist() == [4, 5, 7]


def test_empty_cells_and_nan_are_missing_readings(file: Path, settings: Settings) -> None:
    file.write_text(HEADER + "2017-03-07T04:45:00Z, ,NaN\n" + "2017-03-07T05:00:00Z,,-nan\n")

    readings = read_readings(file, settings.meter_table, settings.meter)

    assert readings[["machine_1", "machine_2"]].isna().all(axis=None)


@PROPERTY
@given(reading=st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_is_read_to_the_last_bit(
    reading: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("exact") / "readings.csv"
    file.write_text(wide([reading]))

    readings = read_readings(file, load_settings({}).meter_table, load_settings({}).meter)

    assert readings["machine_1"].tolist() == [reading]


@PROPERTY
@given(moment=st.datetimes(datetime(1970, 1, 2), datetime(2100, 1, 1)), hours=st.integers(-12, 12))
def test_any_offset_names_the_same_moment(
    moment: datetime, hours: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    utc = moment.replace(tzinfo=UTC)
    sign, local = "-" if hours < 0 else "+", (moment + timedelta(hours=hours)).isoformat()
    file = tmp_path_factory.mktemp("offset") / "readings.csv"
    file.write_text(f"utc_timestamp,machine_1\n{local}{sign}{abs(hours):02d}:00,1\n")

    readings = read_readings(file, load_settings({}).meter_table, load_settings({}).meter)

    assert readings["utc_timestamp"].dt.to_pydatetime().tolist() == [utc]


def test_a_gzipped_file_is_read_like_a_plain_one(file: Path, settings: Settings) -> None:
    zipped = file.with_suffix(".csv.gz")
    zipped.write_bytes(gzip.compress((HEADER + ROW).encode()))

    assert read_readings(zipped, settings.meter_table, settings.meter)["machine_2"].tolist() == [
        2.5
    ]


def test_a_byte_order_mark_and_windows_line_ends_are_accepted(
    file: Path, settings: Settings
) -> None:
    file.write_bytes((HEADER + ROW).replace("\n", "\r\n").encode("utf-8-sig"))

    assert read_readings(file, settings.meter_table, settings.meter)["machine_2"].tolist() == [2.5]


def test_chunks_do_not_change_what_is_read(
    file: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text(wide([float(n) for n in range(100)]))
    at_once = read_readings(file, settings.meter_table, settings.meter)

    monkeypatch.setattr(text_files, "BLOCK_BYTES", 300)

    pd.testing.assert_frame_equal(
        read_readings(file, settings.meter_table, settings.meter), at_once
    )


def test_the_real_readings_are_read_whole(shared_data: Path, settings: Settings) -> None:
    readings = read_readings(
        shared_data / "industrial3_15min.csv", settings.meter_table, settings.meter
    )

    assert readings.shape == (6605, 6)
    assert readings.index[-1] == 6606


# The public file ----------------------------------------------------------

OPSD = (
    "utc_timestamp,cet_cest_timestamp,DE_KN_industrial1_pv_1,DE_KN_industrial3_ev,"
    "DE_KN_industrial3_machine_1,interpolated\n"
)


def test_the_public_file_loses_its_prefix_and_its_other_sites(
    file: Path, settings: Settings
) -> None:
    file.write_text(OPSD + "2014-12-11T17:45:00Z,2014-12-11T18:45:00+0100,7,,1.5,x | y\n")

    readings = read_readings(file, settings.meter_table, settings.meter)

    assert list(readings.columns) == ["utc_timestamp", "cet_cest_timestamp", "ev", "machine_1"]
    assert readings["machine_1"].tolist() == [1.5]


def test_rows_of_the_public_file_without_a_reading_of_the_site_are_skipped(
    file: Path, settings: Settings
) -> None:
    empty = "2014-12-11T17:45:00Z,2014-12-11T18:45:00+0100,7,,,\n"
    file.write_text(OPSD + empty + "2014-12-11T18:00:00Z,2014-12-11T19:00:00+0100,7,,1.5,\n")

    assert read_readings(file, settings.meter_table, settings.meter).index.tolist() == [3]


def test_a_public_file_without_any_reading_of_the_site_is_refused(
    file: Path, settings: Settings
) -> None:
    said = refusal(file, OPSD + "2014-12-11T17:45:00Z,2014-12-11T18:45:00+0100,7,,,\n", settings)

    assert said == (
        "readings.csv has no reading in any column DE_KN_industrial3_*: take another part of it"
    )


def test_an_error_in_the_public_file_names_its_own_column(file: Path, settings: Settings) -> None:
    said = refusal(file, OPSD + "2014-12-11T17:45:00Z,,,,off,\n", settings)

    assert said.startswith("readings.csv, line 2, column DE_KN_industrial3_machine_1: 'off' is not")


def test_a_row_without_readings_in_a_file_of_our_own_is_kept(
    file: Path, settings: Settings
) -> None:
    file.write_text(HEADER + "2017-03-07T04:45:00Z,,\n")

    assert len(read_readings(file, settings.meter_table, settings.meter)) == 1


# Files that cannot be read ------------------------------------------------


def test_a_missing_file_is_named(file: Path, settings: Settings) -> None:
    with pytest.raises(IngestError, match=r"nothing\.csv does not exist: check the path"):
        read_readings(file.with_name("nothing.csv"), settings.meter_table, settings.meter)


def test_a_folder_is_refused(tmp_path: Path, settings: Settings) -> None:
    with pytest.raises(IngestError, match="cannot be read: Is a directory"):
        read_readings(tmp_path, settings.meter_table, settings.meter)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty: export it again"),
        (b"\n\r\n", "is empty: export it again"),
        (HEADER, "holds a header and no rows: export it again"),
        (
            (HEADER + ROW).encode("utf-16")[:-1],
            ", line 2: byte 0x0a is not utf-16: name its encoding",
        ),
        (b"PK\x03\x04\x00\x00", "is a damaged zip file"),
        (b"\x00\x01\x02" * 99, ", line 1 is not text: save it as CSV in UTF-8"),
        (
            HEADER.encode() + ROW.encode() * 10_000 + b"\xe4",
            ", line 10002: byte 0xe4 is not UTF-8: name",
        ),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS"),
        ("<html><body>no access</body></html>", "is XML or HTML, not a table: save it as CSV"),
        ("2017-03-07T04:45:00Z,1\n2017-03-07T05:00:00Z,2\n", ", line 1 holds values ('2017-03-07T"),
        (b"\xd0\xcf\x11\xe0" * 9, "is an old Excel file (.xls): save it as .xlsx"),
        (HEADER + '2017-03-07T04:45:00Z,"1,2\n' + ROW, ", line 2 is not CSV"),
        (gzip.compress(HEADER.encode(), mtime=0)[:-9], "is a damaged gzip file"),
        (b"\x1f\x8bno gzip at all", "is a damaged gzip file"),
        (HEADER + ROW + "2017-03-07T05:0", ", line 3: the header names 3 columns, this line has 1"),
        (HEADER + "2017-03-07T05:00:00Z,1,5,2,5\n", ", line 2: the header names 3 columns"),
    ],
)
def test_a_file_that_is_not_a_whole_csv_is_refused(
    content: str | bytes, said: str, file: Path, settings: Settings
) -> None:
    assert refusal(file, content, settings).startswith(
        "readings.csv" + " " * (said[0] != ",") + said
    )


# Columns ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("utc_timestamp,machine_1,compresor", "unknown column 'compresor': did you mean 'comp"),
        (
            "utc_timestamp,machine_1,xyzzy",
            "unknown column 'xyzzy': leave it out by --ignore-unknown, or say what it is, for"
            " example --columns xyzzy=machine_1; known: cet_cest_timestamp, ",
        ),
        (
            "utc_timestamp,machine_1,xyzzy,compresor,",
            "unknown columns 'xyzzy', 'compresor' (did you mean 'compressor'?): leave them out",
        ),
        ("utc_timestamp,machine_1,machine_6", "anomaly.meter_readings has machine_1 to machine_5"),
        ("utc_timestamp,compressor", "no machine column, it has 'utc_timestamp', 'compressor'"),
        ("time,machine_1", "no column 'utc_timestamp', it has 'time', 'machine_1': rename one"),
        ("utc_timestamp,machine_1,machine_1", "two columns machine_1: keep the right one"),
        ("utc_timestamp,machine_1,DE_KN_industrial3_machine_1", "two columns machine_1"),
        ("utc_timestamp,Machine 1, MACHINE-1 ", "two columns machine_1"),
    ],
)
def test_a_header_that_is_not_the_record_is_refused_with_a_way_out(
    header: str, said: str, file: Path, settings: Settings
) -> None:
    assert said in refusal(file, header + "\n", settings)


def test_columns_that_are_no_readings_are_left_out(file: Path, settings: Settings) -> None:
    file.write_text(
        "utc_timestamp,machine_1,interpolated,ingested_at\n2017-03-07T04:45:00Z,1,x,y\n"
    )

    assert list(read_readings(file, settings.meter_table, settings.meter).columns) == [
        "utc_timestamp",
        "machine_1",
    ]


def test_any_column_can_be_mapped_to_a_machine(file: Path) -> None:
    settings = load_settings({}, source_machines={"compressor": 7})
    file.write_text("utc_timestamp,compressor\n2017-03-07T04:45:00Z,1\n")

    assert read_readings(file, settings.meter_table, settings.meter)["compressor"].tolist() == [1.0]


# Numbers ------------------------------------------------------------------


@pytest.mark.parametrize("cell", ["inf", "-inf", "+Infinity", "1e999"])
def test_an_infinity_is_refused(cell: str, file: Path, settings: Settings) -> None:
    said = refusal(file, HEADER + ROW + f"2017-03-07T05:00:00Z,1,{cell}\n", settings)

    assert said.startswith(
        f"readings.csv, line 3, column machine_2: '{cell}' is infinite: leave it"
    )


@pytest.mark.parametrize("cell", ["12 kWh", "1_000", "٣", "0x10", "true", "-"])
def test_text_in_place_of_a_number_is_refused(cell: str, file: Path, settings: Settings) -> None:
    said = refusal(file, HEADER + ROW + f"\n2017-03-07T05:00:00Z,{cell},1\n", settings)

    assert said == (
        f"readings.csv, line 4, column machine_1: '{cell}' is not a number:"
        " leave it empty if there is no reading"
    )


def test_a_decimal_comma_among_points_is_refused_with_a_hint(
    file: Path, settings: Settings
) -> None:
    said = refusal(file, HEADER + ROW + '2017-03-07T05:00:00Z,"1,5",1\n', settings)

    assert "'1,5' is not a number with a decimal point: write all numbers the same way" in said


@PROPERTY
@given(rows=st.integers(1, 60), bad=st.data())
def test_the_line_of_a_bad_cell_is_named_wherever_it_is(
    rows: int, bad: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    line = bad.draw(st.integers(2, rows + 1))
    lines = wide([1.0] * rows).splitlines()
    lines[line - 1] += "x"
    file = tmp_path_factory.mktemp("bad") / "readings.csv"

    said = refusal(file, "\n".join(lines), load_settings({}))

    assert said.startswith(f"readings.csv, line {line}, column machine_1: '1.0x'")


# Timestamps ---------------------------------------------------------------


def test_a_timestamp_without_a_zone_is_refused_until_a_setting_says_which(
    file: Path, settings: Settings
) -> None:
    said = refusal(file, HEADER + "2024-02-10 14:30:00,1,2\n", settings)

    assert said == (
        "readings.csv, line 2, column utc_timestamp: '2024-02-10 14:30:00' has no time zone: say"
        " --timezone UTC if it is UTC, else the zone it is written in, for example --timezone"
        " Europe/Berlin (or set ANOMALY_SOURCE_TIMEZONE)"
    )


@pytest.mark.parametrize(("zone", "hour"), [("UTC", 14), ("Europe/Berlin", 13)])
def test_a_timestamp_without_a_zone_is_read_in_the_zone_of_the_setting(
    zone: str, hour: int, file: Path
) -> None:
    file.write_text(HEADER + "2024-02-10 14:30:00,1,2\n")

    readings = read_readings(
        file,
        load_settings({}, source_timezone=zone).meter_table,
        load_settings({}, source_timezone=zone).meter,
    )

    assert readings["utc_timestamp"].dt.hour.tolist() == [hour]


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [("Z", "", "has no time zone and line 2 has one"), ("", "Z", "has a time zone and line 2 has")],
)
def test_timestamps_with_and_without_a_zone_do_not_mix(
    first: str, second: str, said: str, file: Path
) -> None:
    rows = f"2017-03-07T04:45:00{first},1,2\n2017-03-07T05:00:00{second},1,2\n"

    message = refusal(file, HEADER + rows, load_settings({}, source_timezone="UTC"))

    assert message.startswith("readings.csv, line 3, column utc_timestamp: '2017-03-07T05:00:00")
    assert said in message


@pytest.mark.parametrize("text", ["07.03.2017 05:00", "1488861900", "2017-02-29T00:00Z", "soon"])
def test_an_unreadable_timestamp_is_refused(text: str, file: Path, settings: Settings) -> None:
    said = refusal(file, HEADER + ROW + f"{text},1,2\n", settings)

    assert said.startswith(f"readings.csv, line 3, column utc_timestamp: '{text}' is not a time")


def test_an_empty_timestamp_is_refused(file: Path, settings: Settings) -> None:
    said = refusal(file, HEADER + ROW + ",1,2\n", settings)

    assert said.endswith(
        "line 3, column utc_timestamp: empty, and every row needs a timestamp: write it, or remove"
        " the row"
    )


@pytest.mark.parametrize(
    ("zone", "stamp", "advice"),
    [
        ("Europe/Berlin", "2017-03-26 02:15:00", "set ANOMALY_SOURCE_TIMEZONE=Etc/GMT-1"),
        ("America/Chicago", "2017-03-12 02:00:00", "set ANOMALY_SOURCE_TIMEZONE=Etc/GMT+6"),
        ("Europe/London", "2017-03-26 01:45:00", "set ANOMALY_SOURCE_TIMEZONE=Etc/GMT"),
        ("Australia/Adelaide", "2017-10-01 02:15", "ANOMALY_SOURCE_TIMEZONE=Australia/Darwin"),
        ("Australia/Lord_Howe", "2017-10-01 02:15", "write the times in UTC"),
    ],
)
def test_a_reading_at_a_time_that_the_clock_skips_names_the_zone_of_standard_time(
    file: Path, zone: str, stamp: str, advice: str
) -> None:
    settings = load_settings({}, source_timezone=zone)

    said = refusal(file, HEADER + f"{stamp},1,2\n", settings)

    assert f"line 2, column utc_timestamp: '{stamp}' is a time that clocks in {zone} skip" in said
    assert said.endswith(advice)


@pytest.mark.parametrize("label", ["start", "end"])
def test_empty_rows_of_the_skipped_hour_are_left_out(file: Path, label: str) -> None:
    """Whichever of its two names the row with the reading has, 02:00 or 03:00, as an end."""
    settings = load_settings({}, source_timezone="Europe/Berlin", timestamp_label=label)
    hour = ["02:15", "02:30", "02:45", *(["03:00"] if label == "end" else [])]
    full = "02:00" if label == "end" else "03:00"
    rows = [f"2017-03-26 {time},,\n" for time in hour] + [f"2017-03-26 {full},1,2\n"]
    file.write_text(HEADER + "".join(rows))

    readings = read_readings(file, settings.meter_table, settings.meter)

    assert readings["utc_timestamp"].tolist() == [pd.Timestamp("2017-03-26 01:00Z")]


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/Chicago", "Australia/Lord_Howe"])
@pytest.mark.parametrize(
    "ends", ["start", "end, as the clock shows it", "end, as its start has it"]
)
def test_a_year_of_a_local_file_is_read_whole(file: Path, order: int, zone: str, ends: str) -> None:
    """Newest line first or last, in both ways to label the end of an interval."""
    quarter = pd.Timedelta("15min")
    start = pd.date_range("2023-01-01", "2024-01-01", freq=quarter, tz="UTC", inclusive="left")
    local = {
        "start": start.tz_convert(zone).tz_localize(None),
        "end, as the clock shows it": (start + quarter).tz_convert(zone).tz_localize(None),
        "end, as its start has it": start.tz_convert(zone).tz_localize(None) + quarter,
    }[ends]
    rows = [f"{at:%Y-%m-%d %H:%M},{n},{n}\n" for n, at in enumerate(local)]
    file.write_text(HEADER + "".join(rows[::order]))
    settings = load_settings({}, source_timezone=zone, timestamp_label=ends[:5].strip(", "))

    readings = read_readings(file, settings.meter_table, settings.meter).sort_values(
        "utc_timestamp"
    )

    labels = start if ends == "start" else start + quarter
    assert readings["utc_timestamp"].tolist() == labels.tolist()
    assert readings["machine_2"].tolist() == list(range(len(start)))


def test_an_hour_that_the_clock_shows_twice_is_its_second(file: Path) -> None:
    file.write_text(HEADER + "2017-10-29 02:15:00,1,2\n")

    readings = read_readings(
        file,
        load_settings({}, source_timezone="Europe/Berlin").meter_table,
        load_settings({}, source_timezone="Europe/Berlin").meter,
    )

    assert readings["utc_timestamp"].tolist() == [pd.Timestamp("2017-10-29 01:15Z")]


def test_the_label_of_a_timestamp_is_left_to_the_reader_of_the_table(file: Path) -> None:
    file.write_text(HEADER + ROW)

    readings = read_readings(
        file,
        load_settings({}, timestamp_label="end").meter_table,
        load_settings({}, timestamp_label="end").meter,
    )

    assert readings["utc_timestamp"].tolist() == [pd.Timestamp("2017-03-07 04:45Z")]


# Repeated rows ------------------------------------------------------------


def test_two_rows_of_one_moment_are_refused_whatever_their_offsets(
    file: Path, settings: Settings
) -> None:
    again = ROW.replace("04:45:00Z", "05:45:00+01:00")

    said = refusal(file, HEADER + ROW + ROW.replace("04:45", "05:00") + again, settings)

    assert said == (
        "readings.csv, lines 2 and 4 have the same utc_timestamp (2017-03-07 04:45:00+00:00):"
        " keep the right one"
    )


def test_all_rows_of_moments_that_are_there_twice_are_told(file: Path, settings: Settings) -> None:
    said = refusal(file, HEADER + ROW * 2 + ROW.replace("04:45", "05:00") * 3, settings)

    assert said.split("\n") == [
        "readings.csv has 2 readings twice:",
        "  lines 2 and 3 have the same utc_timestamp (2017-03-07 04:45:00+00:00)",
        "  lines 4 and 5 have the same utc_timestamp (2017-03-07 05:00:00+00:00)",
        "keep the right ones",
    ]


def test_two_lines_of_a_time_shown_twice_are_the_two_hours_in_their_order(file: Path) -> None:
    settings = load_settings({}, source_timezone="Europe/Berlin")
    file.write_text(HEADER + "2017-10-29 02:15:00,1,2\n" * 2)

    readings = read_readings(file, settings.meter_table, settings.meter)

    assert readings["utc_timestamp"].tolist() == [
        pd.Timestamp("2017-10-29 00:15Z"),
        pd.Timestamp("2017-10-29 01:15Z"),
    ]


def test_three_lines_of_a_time_shown_twice_are_refused(file: Path) -> None:
    settings = load_settings({}, source_timezone="Europe/Berlin")

    said = refusal(file, HEADER + "2017-10-29 02:15:00,1,2\n" * 3, settings)

    assert "lines 2 and 3 have the same utc_timestamp" in said


NIGHT = pd.date_range("2017-10-28 23:30", "2017-10-29 02:30", freq="15min", tz="UTC")


def in_order(rows: list[str]) -> list[str]:
    return rows


def from_the_end(rows: list[str]) -> list[str]:
    return rows[::-1]


@pytest.mark.parametrize("arranged", [in_order, from_the_end])
@pytest.mark.parametrize("label", ["start", "end"])
@pytest.mark.parametrize("gone", range(len(NIGHT)))
def test_a_row_may_be_missing_in_an_hour_that_clocks_show_twice(
    gone: int, label: str, arranged: Callable[[list[str]], list[str]], file: Path
) -> None:
    settings = load_settings({}, source_timezone="Europe/Berlin", timestamp_label=label)
    left = NIGHT.delete(gone)
    local = left.tz_convert("Europe/Berlin")
    file.write_text(
        HEADER + "".join(arranged([f"{at:%Y-%m-%d %H:%M},1,{n}\n" for n, at in enumerate(local)]))
    )

    readings = read_readings(file, settings.meter_table, settings.meter)

    assert dict(zip(readings["machine_2"], readings["utc_timestamp"], strict=True)) == dict(
        enumerate(left)
    )


def test_each_machine_of_a_long_file_may_miss_other_rows_of_that_hour(file: Path) -> None:
    settings = long_settings(source_timezone="Europe/Berlin")
    rows = {(at, name) for at in NIGHT for name in "ab"} - {(NIGHT[4], "a"), (NIGHT[7], "b")}
    file.write_text(
        "time,machine,kwh\n"
        + "".join(
            f"{at.tz_convert('Europe/Berlin'):%Y-%m-%d %H:%M},{name},{at.timestamp():.0f}\n"
            for at, name in sorted(rows)
        )
    )

    readings = read_readings(file, settings.meter_table, settings.meter)

    assert {(at, name) for at, name, _ in readings.itertuples(index=False)} == rows
    assert (readings["time"].map(pd.Timestamp.timestamp) == readings["kwh"]).all()


def test_one_row_of_an_hour_whose_times_stand_side_by_side_is_not_told_apart(file: Path) -> None:
    settings = load_settings({}, source_timezone="Europe/Berlin")
    times = ["02:00", "02:00", "02:15", "02:30", "02:30", "02:45", "02:45", "03:00"]

    said = refusal(file, HEADER + "".join(f"2017-10-29 {at},1,2\n" for at in times), settings)

    assert said == (
        "readings.csv, line 4, column utc_timestamp: clocks in Europe/Berlin show 2017-10-29 02:15"
        " twice, and the file has it once, where it has other times of that hour twice, side by"
        " side: write these times with their offset from UTC, or remove the row"
    )


def test_a_row_that_is_repeated_in_such_an_hour_is_not_taken_for_the_second_hour(
    file: Path,
) -> None:
    settings = long_settings(source_timezone="Europe/Berlin")
    times = ["02:00", "02:00", "02:15", "02:30", "02:45", "03:00"]

    said = refusal(
        file, "time,machine,kwh\n" + "".join(f"2017-10-29 {at},a,1\n" for at in times), settings
    )

    assert said.startswith("readings.csv has 3 rows that cannot be read:\n  line 4, column time:")


def test_equal_rows_of_a_long_file_count_once(file: Path) -> None:
    file.write_text("time,machine,kwh\n2017-03-07T04:45Z,a,1\n2017-03-07T04:45Z,a,1.0\n")

    assert read_readings(
        file, long_settings().meter_table, long_settings().meter
    ).index.tolist() == [2]


@pytest.mark.parametrize("other", ["1.5", ""])
def test_rows_of_a_long_file_that_contradict_each_other_are_refused(other: str, file: Path) -> None:
    rows = f"2017-03-07T04:45Z,a,1\n2017-03-07T04:45Z,b,1\n2017-03-07T04:45Z,a,{other}\n"

    said = refusal(file, "time,machine,kwh\n" + rows, long_settings())

    assert said.startswith("readings.csv, lines 2 and 4 have the same time and machine (2017-03-07")


# The long layout ----------------------------------------------------------


def test_a_long_file_is_read_by_the_names_in_the_settings(file: Path) -> None:
    file.write_text("kwh,machine,time,arrived\n1.5,press,2017-03-07T04:45Z,x\n")

    readings = read_readings(file, long_settings().meter_table, long_settings().meter)

    assert list(readings.columns) == ["time", "machine", "kwh"]
    assert readings.iloc[0].tolist() == [pd.Timestamp("2017-03-07 04:45Z"), "press", 1.5]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            "time,kwh\n",
            "no column 'machine', it has 'time', 'kwh': rename one, or set ANOMALY_SOURCE_M",
        ),
        (
            "time,machine\n",
            "no column 'kwh', it has 'time', 'machine': rename one, or set ANOMALY_SOUR",
        ),
        ("time,machine,kwh,site\n", "unknown column 'site'"),
        (
            "time,machine,kwh\n2017-03-07T04:45Z, ,1\n",
            "line 2, column machine: empty, and every row",
        ),
    ],
)
def test_a_long_file_that_lacks_something_is_refused(content: str, said: str, file: Path) -> None:
    assert said in refusal(file, content, long_settings())


# Kinds of readings --------------------------------------------------------

rng = np.random.default_rng(1)
POWER = rng.normal(9250, 60, 200).round().tolist()
COUNTER = np.cumsum(rng.uniform(0, 8, 200)).round(3).tolist()


def test_a_counter_is_not_taken_for_power(file: Path) -> None:
    said = refusal(file, wide(COUNTER), load_settings({}, reading_kind="power_w"))

    assert said == (
        "readings.csv: machine_1 never falls from line 2 to line 201: it looks like a counter"
        " in kWh, set ANOMALY_READING_KIND=energy_kwh"
    )


def test_power_is_not_taken_for_a_counter(file: Path, settings: Settings) -> None:
    said = refusal(file, wide(POWER), settings)

    assert said.startswith("readings.csv: machine_1 falls in ")
    assert said.endswith("set ANOMALY_READING_KIND=power_w")


def test_power_is_read_as_power(file: Path) -> None:
    file.write_text(wide(POWER))

    assert (
        len(
            read_readings(
                file,
                load_settings({}, reading_kind="power_w").meter_table,
                load_settings({}, reading_kind="power_w").meter,
            )
        )
        == 200
    )


@pytest.mark.parametrize(
    "readings",
    [COUNTER[:95], [0.0] * 200, [float(n // 20) for n in range(200)]],
    ids=["too few readings", "always off", "ten values"],
)
def test_too_little_to_tell_is_read_as_power(readings: list[float], file: Path) -> None:
    file.write_text(wide(readings))

    assert len(
        read_readings(
            file,
            load_settings({}, reading_kind="power_w").meter_table,
            load_settings({}, reading_kind="power_w").meter,
        )
    ) == len(readings)


def test_a_counter_may_be_reset(file: Path, settings: Settings) -> None:
    file.write_text(wide(COUNTER[:60] + COUNTER + COUNTER[:3]))

    assert len(read_readings(file, settings.meter_table, settings.meter)) == 263


@pytest.mark.parametrize("chunk", [1, 300, 1 << 23])
def test_the_order_of_lines_does_not_make_a_counter_fall(
    chunk: int, file: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_files, "BLOCK_BYTES", chunk)
    header, *lines = wide(COUNTER).splitlines(keepends=True)
    file.write_text(header + "".join(reversed(lines[:100])) + "".join(lines[100:]))

    assert len(read_readings(file, settings.meter_table, settings.meter)) == 200


@pytest.mark.parametrize("chunk", [1, 300])
def test_kinds_are_told_apart_across_chunks(
    chunk: int, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_files, "BLOCK_BYTES", chunk)

    said = refusal(file, wide(COUNTER), load_settings({}, reading_kind="power_w"))

    assert "machine_1 never falls from line 2 to line 201" in said


def test_each_machine_of_a_long_file_is_judged_by_itself(file: Path) -> None:
    rows = [
        f"{(START + n * timedelta(minutes=15)).isoformat()},{machine},{reading + offset}\n"
        for n, reading in enumerate(COUNTER)
        for machine, offset in (("a", 1e6), ("b", 0.0))
    ]
    file.write_text("time,machine,kwh\n" + "".join(rows))

    readings = read_readings(file, long_settings().meter_table, long_settings().meter)

    assert math.isclose(readings["kwh"].max(), 1e6 + COUNTER[-1])
