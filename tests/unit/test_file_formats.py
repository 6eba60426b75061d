"""Files as people's tools write them are read by what they hold, not by their name."""

import gzip
import io
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import duckdb
import openpyxl
import pandas as pd
import pytest

from anomaly.errors import IngestError
from anomaly.loading import number_parsing
from anomaly.loading.files import preview, read_readings
from anomaly.loading.kinds import unit_in
from anomaly.loading.number_parsing import Decimal
from anomaly.loading.options import FileOptions, parse_columns
from anomaly.loading.time_parsing import Order
from anomaly.settings import load_settings

LONG = {
    "source_layout": "long",
    "source_table": "readings",
    "source_timestamp_column": "time",
    "source_value_column": "kwh",
}
UTC = {"source_timezone": "UTC"}
BERLIN = {"source_timezone": "Europe/Berlin"}


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., pd.DataFrame]:
    """Read a file with this content; options of the command line and settings go by name."""

    def read(
        content: str | bytes, options: FileOptions | None = None, **settings: object
    ) -> pd.DataFrame:
        file = tmp_path / "export.dat"
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        said = load_settings({}, **settings)
        return read_readings(file, said.meter_table, said.meter, options)

    return read


@pytest.fixture
def refused(read: Callable[..., pd.DataFrame]) -> Callable[..., str]:
    """Read a file that is refused, and return what is said of it."""

    def refused(*content: object, **settings: object) -> str:
        with pytest.raises(IngestError) as error:
            read(*content, **settings)
        return str(error.value).partition("export.dat")[2]

    return refused


def rows(frame: pd.DataFrame) -> list[list[object]]:
    """Moments as text, and readings."""
    times = [f"{moment:%Y-%m-%d %H:%M}" for moment in frame.iloc[:, 0]]
    return [[time, *row[1:]] for time, row in zip(times, frame.values.tolist(), strict=True)]


# Text in all its dialects --------------------------------------------------

TWO_ROWS = [["2024-03-31 00:15", 1.5], ["2024-03-31 01:15", 1234.25]]


@pytest.mark.parametrize(
    "content",
    [
        "utc_timestamp,machine_1\n2024-03-31T00:15Z,1.5\n2024-03-31T01:15Z,1234.25\n",
        "utc_timestamp;machine_1\r\n31.03.2024 00:15;1,5\r\n31.03.2024 01:15;1.234,25\r\n",
        "utc_timestamp\tmachine_1\n2024-03-31 00:15\t1,5\n2024-03-31 01:15\t1 234,25\n",
        "utc_timestamp|machine_1\n3/31/2024 0:15|1.5\n3/31/2024 1:15|1,234.25\n",
        '"utc_timestamp","machine_1"\n"3/31/2024 12:15 AM","1.5"\n"3/31/2024 1:15 am","1,234.25"\n',
        "sep=;\nutc_timestamp;machine_1\n31.03.24 0:15;1,5\n31.03.24 1:15;1234,25\n",
        " UTC Timestamp , Machine 1 \n2024/03/31 00:15:00, 1.5\n2024/03/31 01:15:00, 1234.25 \n",
        "Zeit;Machine-1\n20240331001500;1,5\n20240331011500;1234,25\n",
        "utc_timestamp,machine_1\n1711844100,1.5\n1711847700,1234.25\n",
        "utc_timestamp,machine_1\n1711844100000,1.5\n1711847700000,1234.25\n",
        "date,time,machine_1\n2024-03-31,00:15,1.5\n2024-03-31,01:15,1234.25\n",
        "Time;Date;machine_1;\n00:15;31.03.2024;1,5;\n01:15;31.03.2024;1234,25;\n",
        "period,machine_1\n2024-03-31 00:15 to 2024-03-31 00:30,1.5\n"
        "2024-03-31 01:15 to 2024-03-31 01:30,1234.25\n",
        "when,machine_1\n31-Mar-2024 00:15,1.5\n31-Mar-2024 01:15,1234.25\n",
        "when;machine_1\n31. März 2024 00:15;1,5\n31. Mär. 2024 01:15;1234,25\n",
        "when;machine_1\n31 de marzo de 2024 00:15;1,5\n31-mar-2024 01:15;1234,25\n",
        "when,machine_1\n20240331T001500Z,1.5\n20240331T0115Z,1234.25\n",
        "when,machine_1\n2024-03-31T00:15Z/2024-03-31T00:30Z,1.5\n"
        "2024-03-31T01:15Z/PT15M,1234.25\n",
        "time,machine_1\n1711844100.0,1.5\n1711847700.000,1234.25\n",
        "when,machine_1\n3/30/2024 8:15 PM EDT,1.5\n3/30/2024 8:15 PM EST,1234.25\n",
        "when,machine_1\n31.03.2024 01:15 MEZ,1.5\n31.03.2024 03:15 MESZ,1234.25\n",
        "Report of the month\nplant;north\nfrom;31.03.2024\n\nTime;Machine 1\n;kWh\n"
        "31.03.2024 00:15;1,5\n31.03.2024 01:15;1234,25\n",
    ],
)  # fmt: skip
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
def test_the_same_readings_in_any_dialect(
    content: str, encoding: str, read: Callable[..., pd.DataFrame]
) -> None:
    assert rows(read(content.encode(encoding), **UTC)) == TWO_ROWS


def test_midnight_may_be_the_24th_hour_of_the_day_before(
    read: Callable[..., pd.DataFrame],
) -> None:
    found = read("Datum;Zeit;machine_1\n30.06.2024;23:45;1\n30.06.2024;24:00;2\n", **BERLIN)

    assert rows(found) == [["2024-06-30 21:45", 1.0], ["2024-06-30 22:00", 2.0]]


def test_names_in_a_local_encoding_are_found_out_or_said(
    read: Callable[..., pd.DataFrame], tmp_path: Path
) -> None:
    content = "Zeit;Zähler Süd (kWh)\n31.03.2024 00:15;1,5\n".encode("cp1252")
    options = FileOptions(columns={"Zähler Süd (kWh)": "machine_1"})

    assert rows(read(content, options, **UTC)) == [["2024-03-31 00:15", 1.5]]
    said = FileOptions(columns=options.columns, encoding="latin-1")
    assert rows(read(content, said, **UTC)) == [["2024-03-31 00:15", 1.5]]


def test_words_for_missing_are_those_of_pandas(read: Callable[..., pd.DataFrame]) -> None:
    from pandas._libs.parsers import STR_NA_VALUES

    assert set(STR_NA_VALUES) <= number_parsing.MISSING
    cells = "".join(
        f"2024-03-31 00:{minute:02d},{word}\n"
        for minute, word in enumerate(sorted(number_parsing.MISSING))
    )
    assert read("utc_timestamp,machine_1\n" + cells, **UTC)["machine_1"].isna().all()


def test_lines_are_those_of_an_editor_in_every_dialect(refused: Callable[..., str]) -> None:
    content = (
        "sep=;\n\nTitle\n\nTime;machine_1\n31.03.2024 00:15;1\n\n"
        '31.03.2024 00:30;"1"\n"31.03.2024\n00:45";1\n31.03.2024 01:00;x\n'
    )

    said = refused(content, **UTC).split("\n  ")

    assert said[1:] == [
        "line 9, column Time: '31.03.2024\\n00:45' is not a time",
        "line 11, column machine_1: 'x' is not a number\nwrite all times the same way, for example"
        " 31.12.2017 04:45\nleave it empty if there is no reading",
    ]


# Two readings of one text --------------------------------------------------


def test_a_date_that_can_be_two_is_refused_with_both(
    read: Callable[..., pd.DataFrame], refused: Callable[..., str]
) -> None:
    content = "utc_timestamp,machine_1\n3/4/2024 00:15,1\n3/4/2024 00:30,2\n"

    assert refused(content, **UTC) == (
        ": '3/4/2024 00:15' in column utc_timestamp can be 2024-04-03 or 2024-03-04, and no other"
        " time in the file tells which: say --dates day-first or --dates month-first"
    )
    april, march = (
        rows(read(content, FileOptions(dates=order), **UTC))[0][0]
        for order in (Order.DAY_FIRST, Order.MONTH_FIRST)
    )
    assert (april, march) == ("2024-04-03 00:15", "2024-03-04 00:15")


def test_a_later_line_tells_the_order_of_the_day_and_the_month(
    read: Callable[..., pd.DataFrame], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("anomaly.loading.text_files.BLOCK_BYTES", 400)
    days = pd.date_range("2024-01-02", "2024-01-14", freq="6h", tz="UTC")
    for form, size in (("%d/%m/%Y %H:%M", 49), ("%m/%d/%Y %H:%M", 49)):
        lines = [f"{day.strftime(form)},{n}\n" for n, day in enumerate(days)]
        found = read("utc_timestamp,machine_1\n" + "".join(lines), **UTC)
        assert found["utc_timestamp"].tolist() == days.tolist()
        assert len(found) == size


def test_a_number_that_can_be_two_is_refused_with_both(
    read: Callable[..., pd.DataFrame], refused: Callable[..., str]
) -> None:
    content = "utc_timestamp;machine_1\n2024-03-31 00:15;1.234\n2024-03-31 00:30;12.345\n"

    said = refused(content, **UTC)

    assert said.startswith(
        ": '1.234' can be 1.234 with decimals or 1234 with a mark of thousands, and no other"
        " number in the file tells which: say --decimal '.' for 1.234, --decimal ',' for 1234"
    )
    point, comma = (
        read(content, FileOptions(decimal=mark), **UTC)["machine_1"].tolist()
        for mark in (Decimal.POINT, Decimal.COMMA)
    )
    assert (point, comma) == ([1.234, 12.345], [1234.0, 12345.0])


@pytest.mark.parametrize(
    ("cells", "value"),
    [
        (["12 234,567", "12 235,068"], 12234.567),
        (["12\u00a0234,567"], 12234.567),
        (["12'234.5"], 12234.5),
        (["12.5", "0,500"], None),
        (["1,5", "0.500"], None),
    ],
)
def test_spaces_mark_thousands_and_no_thousands_begin_with_nought(
    cells: list[str],
    value: float | None,
    read: Callable[..., pd.DataFrame],
    refused: Callable[..., str],
) -> None:
    lines = [f"2024-03-31 00:{n:02d};{cell}\n" for n, cell in enumerate(cells)]
    content = "utc_timestamp;machine_1\n" + "".join(lines)

    if value is None:
        assert "is not a number with a decimal" in refused(content, **UTC)
    else:
        assert read(content, **UTC)["machine_1"].iloc[0] == value


def test_the_decimal_mark_may_show_late(
    read: Callable[..., pd.DataFrame], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("anomaly.loading.text_files.BLOCK_BYTES", 300)
    times = pd.date_range("2024-03-31", periods=200, freq="15min")
    lines = [f"{at};{'0' if n < 150 else '1,104'}\n" for n, at in enumerate(times)]

    found = read("utc_timestamp;machine_1\n" + "".join(lines), **UTC)

    assert found["machine_1"].max() == 1.104


@pytest.mark.parametrize(
    ("times", "said"),
    [
        (["01.01.2024 00:00-00:15", "01.01.2024 00:15-00:30"], "is not a time"),
        (["2024-01-01 00:00+99:99"], "is not a time"),
        (["9999-12-31 24:00"], "is not a time"),
        (["9999999999999999999"], "is not a time"),
        (["02 Jan 2024 00:00 CST"], "is not a time"),
        (["2401010000"], "is not a time"),
    ],
)
def test_times_that_nobody_can_tell_are_refused(
    times: list[str], said: str, refused: Callable[..., str]
) -> None:
    content = "utc_timestamp,machine_1\n" + "".join(f"{time},1\n" for time in times)

    assert said in refused(content, **UTC)


@pytest.mark.parametrize(
    ("time", "utc"),
    [
        ("2024010113", "2024-01-01 13:00"),
        ("02 Jan 2024 00:00:00 CET", "2024-01-01 23:00"),
        ("1/13/2024 3:15:00\u202fPM", "2024-01-13 15:15"),
    ],
)
def test_times_that_only_look_odd_are_read(
    time: str, utc: str, read: Callable[..., pd.DataFrame]
) -> None:
    assert rows(read(f"utc_timestamp;machine_1\n{time};1\n", **UTC))[0][0] == utc


def test_a_clock_from_to_names_the_start_whatever_the_label(
    read: Callable[..., pd.DataFrame],
) -> None:
    content = "Datum;Zeit;machine_1\n01.01.2024;00:00-00:15;1\n01.01.2024;00:15-00:30;2\n"

    found = read(content, FileOptions(label="end"), **UTC)

    assert [time for time, _ in rows(found)] == ["2024-01-01 00:00", "2024-01-01 00:15"]


def test_a_column_of_remarks_is_no_machine(
    read: Callable[..., pd.DataFrame], refused: Callable[..., str]
) -> None:
    content = "utc_timestamp,machine_1,quality\n2024-01-01 00:00,1,W\n2024-01-01 00:15,2,W\n"

    assert "an unknown column 'quality'" in refused(content, **UTC)
    kept = read(content, FileOptions(ignore_unknown=True), **LONG, **UTC)
    assert kept["machine_id"].unique().tolist() == ["machine_1"]


def test_a_date_that_stands_for_itself_takes_no_clock(read: Callable[..., pd.DataFrame]) -> None:
    content = "utc_timestamp,machine_1,uptime\n2024-01-01,100,13:45\n2024-01-02,200,13:50\n"

    found = read(content, FileOptions(ignore_unknown=True), **UTC)

    assert [time for time, _ in rows(found)] == ["2024-01-01 00:00", "2024-01-02 00:00"]


def test_a_unit_that_is_not_read_is_refused(refused: Callable[..., str]) -> None:
    content = "utc_timestamp,machine_1 [GWh]\n2024-01-01 00:00,1\n"

    assert "names the unit GWh, which is not read" in refused(
        content, FileOptions(columns={"machine_1 [GWh]": "machine_1"}), **UTC
    )


def test_who_says_the_kind_is_believed_and_a_lamp_is_no_counter(
    read: Callable[..., pd.DataFrame], refused: Callable[..., str]
) -> None:
    times = pd.date_range("2024-01-01", periods=480, freq="15min")
    lamp = [f"{at},{800 if 6 <= at.hour < 20 else 0}\n" for at in times]
    content = "utc_timestamp,machine_1\n" + "".join(lamp)
    rising = "utc_timestamp,machine_1\n" + "".join(f"{at},{n}\n" for n, at in enumerate(times))

    assert len(read(content, reading_kind="power_w", **UTC)) == 480
    assert "never falls" in refused(rising, reading_kind="power_w", **UTC)
    said = FileOptions(kind="power_w")
    assert len(read(rising, said, reading_kind="power_w", **UTC)) == 480


def test_refused_rows_are_written_over_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "readings.csv"
    file.write_text("utc_timestamp,machine_1\nsoon,1\n")
    said = load_settings({})

    with pytest.raises(IngestError, match="is there already, and holds no refused rows"):
        read_readings(file, said.meter_table, said.meter, FileOptions(rejects=file))

    assert file.read_text() == "utc_timestamp,machine_1\nsoon,1\n"


@pytest.mark.parametrize("encoding", ["utf-16", "base64", "nonsense"])
def test_an_encoding_that_does_not_fit_is_named(
    encoding: str, read: Callable[..., pd.DataFrame]
) -> None:
    with pytest.raises(IngestError, match=encoding):
        read("utc_timestamp,machine_1\n", FileOptions(encoding=encoding))


@pytest.mark.parametrize("cells", [["24-03-01 00:15"], ["24/03/01 00:15", "24/03/02 00:15"]])
def test_a_year_of_two_digits_that_may_stand_first_is_refused(
    cells: list[str], refused: Callable[..., str]
) -> None:
    content = "utc_timestamp,machine_1\n" + "".join(f"{cell},1\n" for cell in cells)

    assert f"column utc_timestamp: '{cells[0]}' is not a time" in refused(content, **UTC)


def test_what_is_said_of_the_dates_holds_against_a_line_that_contradicts_it(
    refused: Callable[..., str],
) -> None:
    content = "utc_timestamp,machine_1\n3/4/2024 00:15,1\n3/14/2024 00:30,2\n"

    said = refused(content, FileOptions(dates=Order.DAY_FIRST), **UTC)

    assert said.startswith(", line 3, column utc_timestamp: '3/14/2024 00:30' is not a time")


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("Usage_kWh", "kWh"), ("KWH/hh", "kWh"), ("P [W]", "W"), ("power_w", "W"), ("kW", "kW"),
        ("Halle W", None), ("MW Pumpe 3", None), ("Leistung (MW)", "MW"), ("Wh", "Wh"),
        ("Halle W [kWh]", "kWh"), ("MW 3 Leistung (kW)", "kW"), ("Energie [GWh]", "GWh"),
        ("Usage (Real energy in kilowatt-hours)", "kWh"), ("kVARh", "kVARh"), ("Wasser", None),
    ],
)  # fmt: skip
def test_a_unit_in_a_name_is_one_and_no_word(name: str, unit: str | None) -> None:
    assert unit_in(name) == unit


@pytest.mark.parametrize(
    ("cell", "value"),
    [("1.5", [1.234, 1.5]), ("0,5", [1234.0, 0.5]), ("1234.5678", [1.234, 1234.5678])],
)
def test_another_number_tells_the_decimal_mark(
    cell: str, value: list[float], read: Callable[..., pd.DataFrame]
) -> None:
    content = f"utc_timestamp;machine_1\n2024-03-31 00:15;1.234\n2024-03-31 00:30;{cell}\n"

    assert read(content, **UTC)["machine_1"].tolist() == value


def test_where_commas_separate_columns_a_point_is_the_decimal_one(
    read: Callable[..., pd.DataFrame],
) -> None:
    found = read("utc_timestamp,machine_1\n2024-03-31 00:15,1.234\n", **UTC)

    assert found["machine_1"].tolist() == [1.234]


# Columns --------------------------------------------------------------------


def test_columns_are_named_left_out_and_joined_on_the_command_line(
    read: Callable[..., pd.DataFrame],
) -> None:
    content = (
        "ESIID,USAGE_DATE,REVISION_DATE,USAGE_START_TIME,USAGE_END_TIME,USAGE_KWH,ESTIMATED\n"
        "'104437200,03/31/2024,04/02/2024 03:15:00, 00:15, 00:30,.25,A\n"
        "'104437200,03/31/2024,04/02/2024 03:15:00, 00:30, 00:45,.5,A\n"
    )
    columns = parse_columns(
        ["usage_date=utc_timestamp", "USAGE_START_TIME=utc_timestamp", "USAGE_KWH=machine_1"]
    )

    found = read(content, FileOptions(columns=columns, ignore_unknown=True), **UTC)

    assert rows(found) == [["2024-03-31 00:15", 0.25], ["2024-03-31 00:30", 0.5]]


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        (["Usage_kWh"], "--columns 'Usage_kWh' names no pair"),
        (["=machine_1"], "--columns '=machine_1' names no pair"),
        (["a=machine_1", " a=machine_2"], "--columns names 'a' twice: keep one"),
    ],
)
def test_a_pair_that_is_none_is_refused(pairs: list[str], said: str) -> None:
    with pytest.raises(IngestError) as error:
        parse_columns(pairs)
    assert said in str(error.value)


def test_a_column_that_is_not_there_is_refused(refused: Callable[..., str]) -> None:
    content = "utc_timestamp,x\n2024-03-31 00:15,1\n"

    assert " has no column 'y', it has 'utc_timestamp', 'x'" in refused(
        content, FileOptions(columns={"y": "machine_1"}), **UTC
    )
    assert "anomaly.meter_readings has no column 'machine_7': did you mean 'machine_" in refused(
        content, FileOptions(columns={"x": "machine_7"}), **UTC
    )


def test_several_columns_with_times_are_named(refused: Callable[..., str]) -> None:
    content = "from;to;machine_1\n2024-03-31 00:00;2024-03-31 00:15;1\n"

    assert refused(content, **UTC).startswith(
        " has several columns with times, 'from' and 'to': say which is the reading's, for example"
        " --columns from=utc_timestamp"
    )


def test_a_wide_file_fills_a_long_table_with_a_machine_per_column_of_numbers(
    read: Callable[..., pd.DataFrame], refused: Callable[..., str]
) -> None:
    content = ";MT_001;MT_002;Weekday\n2011-01-01 00:15:00;1,5;;Sat\n2011-01-01 00:30:00;2;7;Sat\n"

    assert "an unknown column 'Weekday'" in refused(content, **LONG, **UTC)
    found = read(content, FileOptions(ignore_unknown=True), **LONG, **UTC)

    assert rows(found) == [
        ["2011-01-01 00:15", "MT_001", 1.5],
        ["2011-01-01 00:30", "MT_001", 2.0],
        ["2011-01-01 00:30", "MT_002", 7.0],
    ]


def test_a_long_file_is_told_by_its_shape(read: Callable[..., pd.DataFrame]) -> None:
    content = (
        "Zähler;Wert;Zeit\nsaw;1,5;31.03.2024 00:15\npress;7;31.03.2024 00:15\n"
        "saw;2;31.03.2024 00:30\n"
    )

    assert rows(read(content, **LONG, **UTC)) == [
        ["2024-03-31 00:15", "saw", 1.5],
        ["2024-03-31 00:15", "press", 7.0],
        ["2024-03-31 00:30", "saw", 2.0],
    ]


# Units, kinds and labels -----------------------------------------------------

POWER = "utc_timestamp,machine_1 [kW]\n2024-03-31 00:15,1.5\n2024-03-31 00:30,7\n"
NAMED = FileOptions(columns={"machine_1 [kW]": "machine_1"})


def test_a_unit_in_a_name_is_converted_to_that_of_the_table(
    read: Callable[..., pd.DataFrame], refused: Callable[..., str]
) -> None:
    watts = read(POWER, NAMED, reading_kind="power_w", **UTC)

    assert watts["machine_1"].tolist() == [1500.0, 7000.0]
    said = FileOptions(columns=NAMED.columns, unit="MW")
    assert read(POWER, said, reading_kind="power_w", **UTC)["machine_1"].tolist() == [1.5e6, 7e6]
    assert "names the unit kW, which is none of energy_kwh: say what the readings are, --kind" in (
        refused(POWER, NAMED, **UTC)
    )


def test_mean_power_and_energy_per_interval_are_each_others_conversion(
    read: Callable[..., pd.DataFrame], refused: Callable[..., str]
) -> None:
    content = "utc_timestamp,machine_1\n2024-03-31 00:15,1.5\n2024-03-31 00:30,7\n"
    energy = FileOptions(kind="energy_kwh_per_interval")

    assert read(content, energy, reading_kind="power_w", **UTC)["machine_1"].tolist() == [
        6000,
        28000,
    ]
    table = {"reading_kind": "energy_kwh_per_interval", "reading_unit": "Wh"}
    power = FileOptions(kind="power_w", unit="kW")
    assert read(content, power, **table, **UTC)["machine_1"].tolist() == [375.0, 1750.0]
    assert "holds energy_kwh_per_interval (--kind), and anomaly.meter_readings holds" in refused(
        content, energy, **UTC
    )


def test_the_label_of_a_file_is_turned_into_that_of_the_table(
    read: Callable[..., pd.DataFrame],
) -> None:
    content = "utc_timestamp,machine_1\n2024-10-27 03:00,1\n2024-10-27 03:15,7\n"

    found = read(content, FileOptions(label="end", timezone="Europe/Berlin"))

    assert [time for time, _ in rows(found)] == ["2024-10-27 01:45", "2024-10-27 02:00"]


def test_energy_in_other_intervals_than_set_is_refused(refused: Callable[..., str]) -> None:
    half_hours = pd.date_range("2024-03-31", periods=40, freq="30min")
    content = "utc_timestamp,machine_1\n" + "".join(
        f"{moment:%Y-%m-%d %H:%M},{n * 7 % 5}\n" for n, moment in enumerate(half_hours)
    )

    assert refused(content, reading_kind="energy_kwh_per_interval", **UTC) == (
        ": machine_1 has a reading every 30 min, and as energy of 15 min their power would be"
        " wrong, set ANOMALY_INTERVAL_MINUTES=30"
    )


@pytest.mark.parametrize("minutes", [5, 60])
def test_one_machine_of_another_interval_is_refused(
    minutes: int, refused: Callable[..., str]
) -> None:
    lines = [
        f"{moment:%Y-%m-%d %H:%M},{name},{n * 7 % 5}\n"
        for name, each in [("mill", 15), ("press", minutes)]
        for n, moment in enumerate(pd.date_range("2024-03-31", periods=40, freq=f"{each}min"))
    ]

    assert refused(
        "time,machine_id,kwh\n" + "".join(lines),
        reading_kind="energy_kwh_per_interval",
        **LONG,
        **UTC,
    ) == (
        f": press has a reading every {minutes} min, and as energy of 15 min their power would be"
        " wrong, load machines of different intervals into tables of their own"
    )


def test_energy_with_many_gaps_and_times_that_waver_is_in_the_interval_of_the_settings(
    read: Callable[..., pd.DataFrame],
) -> None:
    quarters = pd.date_range("2024-03-31", periods=400, freq="15min")
    kept = [at + pd.Timedelta(seconds=n % 3) for n, at in enumerate(quarters) if n % 5 in (0, 1, 3)]
    lines = "".join(f"{at:%Y-%m-%d %H:%M:%S},{n * 7 % 5}\n" for n, at in enumerate(kept))

    found = read("time,machine_1\n" + lines, reading_kind="energy_kwh_per_interval", **UTC)

    assert len(found) == len(kept)


# What is not said in words of ours ---------------------------------------------

ENERGY = {"reading_kind": "energy_kwh_per_interval"}
MORNING = [f"2026-03-02T00:{minute:02}Z" for minute in (0, 15, 30)]


def table(header: str, *cells: str) -> str:
    """Three rows at quarter-hours: the time and these cells."""
    return "\n".join([header, *(f"{at},{cell}" for at, cell in zip(MORNING, cells, strict=True))])


def test_a_row_whose_time_cannot_be_read_is_not_taken_for_the_header(
    refused: Callable[..., str],
) -> None:
    times = ["28_ii_2026 23:30", "28_ii_2026 23:45", "01-03-2026 00:00", "01-03-2026 00:15"]
    content = "Zeit;Press (kWh)\n" + "".join(f"{at};10,{n}\n" for n, at in enumerate(times))

    assert refused(content, **LONG, **UTC, **ENERGY).startswith(
        ", line 3: '28_ii_2026 23:45' is not a time that can be read, and the lines below it"
    )


@pytest.mark.parametrize(
    "content",
    [
        table("time,meter,value,unit", "saw,40,kW", "saw,42,kW", "saw,41,kW"),
        "Unit: kW\n\n" + table("time,saw", "40", "42", "41"),
        "site,north\nEinheit,kW\n" + table("time,saw", "40", "42", "41"),
    ],
)
def test_a_unit_in_a_column_of_its_own_or_above_the_table_counts(
    content: str, read: Callable[..., pd.DataFrame], refused: Callable[..., str]
) -> None:
    assert " names the unit kW, which is none of energy_kwh_per_interval" in refused(
        content, **LONG, **ENERGY
    )
    found = read(content, **LONG, reading_kind="power_w", reading_unit="kW")
    assert rows(found) == [
        [f"{at[:10]} {at[11:16]}", "saw", kw] for at, kw in zip(MORNING, (40, 42, 41), strict=True)
    ]


def test_rows_of_another_unit_are_refused(
    refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("anomaly.loading.opened_file.SAMPLE_ROWS", 2)
    content = table("time,meter,value,UoM", "saw,4,kWh", "saw,5,kWh", "oven,5000,Wh")

    assert ", line 4, column UoM: 'Wh' is another unit than that of the rows above, kWh" in refused(
        content, **LONG, **ENERGY
    )


@pytest.mark.parametrize(
    ("header", "cells"),
    [
        ("time,meter,value", ("saw,1", "saw,2", "saw,3")),
        ("time,Tag,status,Wert", ("saw,Good,1", "saw,Good,2", "saw,Good,3")),
        ("time,serial,channel,value", ("10023,1,1", "10023,1,2", "10023,1,3")),
    ],
)
def test_one_meter_alone_is_told_by_its_columns_name(
    header: str, cells: tuple[str, ...], read: Callable[..., pd.DataFrame]
) -> None:
    found = read(table(header, *cells), FileOptions(ignore_unknown=True), **LONG, **ENERGY)

    assert found["machine_id"].tolist() == [cells[0].split(",")[0]] * 3
    assert found["kwh"].tolist() == [1, 2, 3]


@pytest.mark.parametrize("header", ["#", "Temp [°C]", "Compressor [m³]", "Status", "Index"])
def test_numbers_that_are_no_meters_are_asked_about(
    header: str, read: Callable[..., pd.DataFrame], refused: Callable[..., str]
) -> None:
    content = table(f"time,{header},saw", "1,10", "2,11", "3,10")

    assert f" has an unknown column '{header}'" in refused(content, **LONG, **ENERGY)
    left = read(content, FileOptions(columns={header: ""}), **LONG, **ENERGY)
    assert left["machine_id"].tolist() == ["saw"] * 3


def test_one_bad_cell_does_not_take_its_machine_away(refused: Callable[..., str]) -> None:
    content = table("time,saw,oven", "10,1", "Bad,2", "11,3")

    assert ", line 3, column saw: 'Bad' is not a number" in refused(content, **LONG, **ENERGY)


@pytest.mark.parametrize("name", ["Cañón", "São nº", "Größe"])
def test_a_word_of_western_europe_is_read_as_such(
    name: str, read: Callable[..., pd.DataFrame]
) -> None:
    found = read(table(f"time,{name}", "1", "2", "3").encode("cp1252"), **LONG, **ENERGY)

    assert found["machine_id"].tolist() == [name] * 3


@pytest.mark.parametrize(
    ("name", "label", "first"),
    [
        ("Interval Ending", None, "00:00"),
        ("bis", None, "00:00"),
        ("Start time", None, "00:15"),
        ("Interval Ending", "start", "00:15"),
    ],
)
def test_a_column_may_name_the_end_of_its_intervals(
    name: str, label: str | None, first: str, read: Callable[..., pd.DataFrame]
) -> None:
    content = f"{name},machine_1\n2026-03-02T00:15Z,1\n2026-03-02T00:30Z,2\n"

    found = read(content, FileOptions(label=label))

    assert rows(found)[0] == [f"2026-03-02 {first}", 1.0]


def test_a_table_of_days_by_times_of_day_is_refused(refused: Callable[..., str]) -> None:
    content = "Date,00:00,00:15,00:30\n2026-03-02,1,2,3\n2026-03-03,1,2,3\n"

    assert " has one row per day, and a column per time of day" in refused(content, **LONG, **UTC)


def test_an_index_of_times_without_a_name_is_the_time(read: Callable[..., pd.DataFrame]) -> None:
    times = pd.date_range("2026-03-02", periods=3, freq="15min", tz="UTC")
    buffer = io.BytesIO()
    pd.DataFrame({"machine_1": [1.0, 2.0, 3.0]}, index=times).to_parquet(buffer)

    assert rows(read(buffer.getvalue()))[2] == ["2026-03-02 00:30", 3.0]


# Other formats -----------------------------------------------------------------

FRAME = pd.DataFrame(
    {
        "utc_timestamp": pd.date_range("2024-10-27", periods=24, freq="15min", tz="Europe/Berlin"),
        "machine_1": [0.5, None, *range(22)],
    }
)
EXPECTED = [
    [f"{moment.tz_convert('UTC'):%Y-%m-%d %H:%M}", value]
    for moment, value in FRAME.itertuples(index=False)
]


def same(found: pd.DataFrame) -> bool:
    expected = pd.DataFrame(EXPECTED)
    return bool(pd.DataFrame(rows(found)).equals(expected))


def packed(name: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


def as_bytes(write: Callable[[io.BytesIO], object]) -> bytes:
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


EPOCHS = FRAME.assign(utc_timestamp=FRAME["utc_timestamp"].astype("int64") // 1000)
NAIVE = FRAME.assign(utc_timestamp=FRAME["utc_timestamp"].dt.tz_localize(None))


@pytest.mark.parametrize(
    "content",
    [
        FRAME.to_csv(index=False).encode(),
        FRAME.to_csv(index=False, sep=";", decimal=",").encode("utf-16"),
        gzip.compress(FRAME.to_csv(index=False).encode()),
        packed("readings.csv", FRAME.to_csv(index=False).encode()),
        as_bytes(lambda file: FRAME.to_parquet(file, index=False)),
        as_bytes(lambda file: FRAME.set_index("utc_timestamp").to_parquet(file)),
        FRAME.to_json(orient="records", lines=True, date_format="iso").encode(),
        EPOCHS.to_json(orient="records", lines=True).encode(),
        FRAME.to_json(orient="records", date_format="iso", indent=1).encode(),
        gzip.compress(FRAME.to_json(orient="records", lines=True, date_format="iso").encode()),
        as_bytes(lambda file: NAIVE.to_parquet(file, index=False)),
        as_bytes(lambda file: NAIVE.to_excel(file, index=False)),
        NAIVE.to_csv(index=False).encode(),
    ],
    ids=["csv", "utf-16", "gz", "zip", "parquet", "parquet, indexed", "json lines", "epoch",
         "json array", "json gz", "parquet, local", "xlsx", "csv, local"],
)  # fmt: skip
def test_what_pandas_writes_is_read(content: bytes, read: Callable[..., pd.DataFrame]) -> None:
    """Over the hour that clocks show twice, also where the times name no zone."""
    assert same(read(content, **BERLIN))


def test_what_duckdb_writes_is_read(tmp_path: Path, read: Callable[..., pd.DataFrame]) -> None:
    frame = FRAME.assign(utc_timestamp=FRAME["utc_timestamp"].dt.tz_convert("UTC"))
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'Europe/Berlin'")
        connection.register("frame", frame)
        for form in ("FORMAT csv, HEADER", "FORMAT parquet", "FORMAT json"):
            file = tmp_path / "export"
            connection.execute(f"COPY frame TO '{file}' ({form})")
            assert same(read(file.read_bytes(), **BERLIN)), form


def workbook(*sheets: tuple[str, list[list[object]]]) -> bytes:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for title, cells in sheets:
        sheet = book.create_sheet(title)
        for row in cells:
            sheet.append(row)
    return as_bytes(book.save)


def test_a_workbook_with_a_preamble_texts_and_a_clock_of_its_own(
    read: Callable[..., pd.DataFrame],
) -> None:
    date = pd.Timestamp("2024-10-27").to_pydatetime()
    content = workbook(
        ("Notes", []),
        (
            "Lastgang",
            [
                ["Werk Nord", None, None],
                [],
                ["Datum", "Uhrzeit", "machine_1"],
                [date, pd.Timestamp("2024-10-27 01:45").time(), 1.5],
                [date, pd.Timedelta(hours=24).to_pytimedelta(), 2],
                [None, None, None],
            ],
        ),
    )

    assert rows(read(content, **BERLIN)) == [["2024-10-26 23:45", 1.5], ["2024-10-27 23:00", 2.0]]


def test_a_workbook_of_texts(read: Callable[..., pd.DataFrame]) -> None:
    content = workbook(("1", [["Zeit", "machine_1"], ["31.03.2024 00:15", "1.5"]]))

    assert rows(read(content, **UTC)) == [["2024-03-31 00:15", 1.5]]


def test_a_number_as_text_in_a_workbook_may_have_a_mark_of_thousands(
    read: Callable[..., pd.DataFrame], refused: Callable[..., str]
) -> None:
    times = [f"31.03.2024 0{hour}:15" for hour in range(3)]
    header = ["Zeit", "machine_1"]

    def of(*cells: object) -> bytes:
        return workbook(("1", [header, *map(list, zip(times, cells, strict=False))]))

    assert ": '1.234' can be 1.234 with decimals or 1234" in refused(of("1.234", "2.345"), **UTC)
    assert read(of("1.234", "2.345,5"), **UTC)["machine_1"].tolist() == [1234.0, 2345.5]
    assert read(of(1.234, 2, None), **UTC)["machine_1"].tolist()[:2] == [1.234, 2.0]
    assert read(of("n/a", 1.234, 2.345), **UTC)["machine_1"].tolist()[1:] == [1.234, 2.345]


def test_a_formula_without_its_value_is_no_empty_cell(
    read: Callable[..., pd.DataFrame], refused: Callable[..., str]
) -> None:
    moment = pd.Timestamp("2024-03-31 00:15").to_pydatetime()
    content = workbook(("1", [["Zeit", "machine_1"], [moment, "=1.5*2"]]))

    assert refused(content, **UTC) == (
        ", cell B2: '=1.5*2' is a formula whose value was not saved: open the file in Excel or"
        " LibreOffice and save it"
    )
    # As Excel writes it.
    with zipfile.ZipFile(io.BytesIO(content)) as written:
        parts = {name: written.read(name) for name in written.namelist()}
    sheet = "xl/worksheets/sheet1.xml"
    parts[sheet] = re.sub(rb"<v ?/>|<v></v>", b"<v>3</v>", parts[sheet])
    saved = io.BytesIO()
    with zipfile.ZipFile(saved, "w") as book:
        for name, part in parts.items():
            book.writestr(name, part)
    assert rows(read(saved.getvalue(), **UTC)) == [["2024-03-31 00:15", 3.0]]


def test_of_several_sheets_one_must_be_named(
    read: Callable[..., pd.DataFrame], refused: Callable[..., str]
) -> None:
    row = [pd.Timestamp("2024-03-31").to_pydatetime(), 1]
    content = workbook(
        ("A", [["utc_timestamp", "machine_1"], row]), ("B", [["utc_timestamp", "machine_2"], row])
    )

    assert refused(content, **UTC).startswith(
        " has 2 sheets with cells ('A', 'B'): name one, for example --sheet 'A'"
    )
    assert read(content, FileOptions(sheet="B"), **UTC)["machine_2"].tolist() == [1.0]
    assert "has no sheet 'C': there are 'A', 'B'" in refused(content, FileOptions(sheet="C"), **UTC)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (packed("a.csv", b"")[:-4], "is a damaged zip file"),
        (
            b'{"utc_timestamp": "2024-03-31T00:15Z", "machine_1": 1}\n{"utc_ti',
            ", line 2 is not JSON",
        ),
        (b'{"utc_timestamp": "2024-03-31T00:15Z", "machine_1": 1}\n[1]\n', "not a JSON object"),
        (
            b'{"utc_timestamp": "2024-03-31T00:15Z", "machine_1": "x"}\n',
            ", line 1, column machine_1: 'x' is not a number",
        ),
        (b"PAR1nonsensePAR1", "is a damaged Parquet file"),
        (packed("xl/workbook.xml", b"<x/>"), "is a damaged Excel file"),
        (packed("content.xml", b"<x/>"), "is an OpenDocument file: save it as .xlsx or CSV"),
        (b"%PDF-1.7 ...", "is a PDF: export the readings as CSV or .xlsx"),
        (workbook(("1", [])), "is empty: export it again, with a header"),
        (
            workbook(("1", [[1, 2], [3, 4]])),
            "row 1 holds values ('1, 2') where a header should name",
        ),
    ],
)
def test_what_is_damaged_or_of_another_kind_is_named(
    content: bytes, said: str, refused: Callable[..., str]
) -> None:
    assert said in refused(content, **UTC)


def test_an_archive_of_several_files_names_them(refused: Callable[..., str]) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in ("a.csv", "b.csv", "__MACOSX/a.csv"):
            archive.writestr(name, "x")

    assert " holds 2 files (a.csv, b.csv): unpack it" in refused(buffer.getvalue())


NEM12 = (
    "100,NEM12,202403010000,MDP1,Retailer\n"
    "200,4103035332,E1B1,E1,E1,N1,0123,KWH,30,20240401\n"
    f"300,20240301,{','.join(str(n / 4) for n in range(48))},A,,,20240302000000,\n"
    "400,1,48,A,,\n"
    "200,4103035332,E1B1,B1,B1,N1,0123,kWh,30,20240401\n"
    f"300,20240301,{','.join(['0.5'] * 47)},,A,,,20240302000000,\n900\n"
)


def test_nem12_is_read_in_market_time(
    read: Callable[..., pd.DataFrame], refused: Callable[..., str]
) -> None:
    kind = {"reading_kind": "energy_kwh_per_interval", "interval_minutes": 30}

    found = read(NEM12, **kind, **LONG)

    assert rows(found[found["machine_id"] == "4103035332/E1"])[:2] == [
        ["2024-02-29 14:00", "4103035332/E1", 0.0],
        ["2024-02-29 14:30", "4103035332/E1", 0.25],
    ]
    assert found["kwh"].notna().sum() == 95
    assert set(found.index) == {3, 6}
    short = refused(NEM12.replace("0.25,0.5,", ""), **kind, **LONG)
    assert ", line 3, column kwh: 'A' is not a number" in short
    cut = re.sub(r",0\.75,.*11\.75,A.*", "", NEM12)
    assert ", line 3: '300,20240301,0.0,0.25,0.5' is no day of 48 values" in refused(
        cut, **kind, **LONG
    )
    assert "is no 200 record of energy" in refused(NEM12.replace("KWH", "KVARH"), **kind, **LONG)
    assert "the unit is Wh, and was kWh before" in refused(
        NEM12.replace("kWh", "wh"), **kind, **LONG
    )


# What is refused -------------------------------------------------------------


def test_all_rows_that_cannot_be_read_are_told_at_once(
    refused: Callable[..., str], tmp_path: Path
) -> None:
    good = "2024-03-31 00:{:02d},1\n"
    bad = "2024-03-31 01:{:02d},x{}\n"
    content = "utc_timestamp,machine_1\n" + "".join(
        [good.format(1), "soon,1\n", *(bad.format(n, n) for n in range(30)), "2024-03-31 02:00\n"]
    )
    rejects = tmp_path / "rejects.csv"

    said = refused(content, FileOptions(rejects=rejects), **UTC).split("\n")

    assert said[0] == f" has 32 rows that cannot be read; the refused rows are in {rejects}:"
    assert len(said[1:]) == 10 + 1 + 2
    assert "  line 3, column utc_timestamp: 'soon' is not a time" in said
    assert "  and 22 more" in said
    assert "leave it empty if there is no reading" in said
    kept = pd.read_csv(rejects)
    assert list(kept.columns) == ["line", "reason", "utc_timestamp", "machine_1"]
    assert sorted(kept["line"]) == [3, *range(4, 34), 34]
    assert kept["reason"][kept["line"] == 9].item() == (
        "line 9, column machine_1: 'x5' is not a number"
    )


def test_no_file_of_refused_rows_is_made_of_a_good_file(
    read: Callable[..., pd.DataFrame], tmp_path: Path
) -> None:
    rejects = tmp_path / "rejects.csv"

    read("utc_timestamp,machine_1\n2024-03-31 00:15,1\n", FileOptions(rejects=rejects), **UTC)

    assert not rejects.exists()


def test_a_file_of_refused_rows_that_cannot_be_written_is_named(
    read: Callable[..., pd.DataFrame], tmp_path: Path
) -> None:
    with pytest.raises(IngestError, match=r"cannot be written: .*choose another file"):
        read(
            "utc_timestamp,machine_1\nsoon,1\n",
            FileOptions(rejects=tmp_path / "no" / "folder.csv"),
            **UTC,
        )


# What a file was taken for ---------------------------------------------------


def test_what_a_file_is_taken_for_is_told(tmp_path: Path) -> None:
    file = tmp_path / "lastgang.csv"
    quarters = pd.date_range("2024-10-27", periods=120, freq="15min", tz="Europe/Berlin")
    lines = [
        f"{at:%d.%m.%Y %H:%M};{n * 13 % 7},5;x\n"
        for n, at in enumerate(quarters)
        if n not in (5, 6)
    ]
    file.write_text("Zeit;Wirkarbeit [kWh];Status\n" + "".join(lines))
    said = load_settings(
        {}, reading_kind="energy_kwh_per_interval", source_timezone="Europe/Berlin"
    )
    options = FileOptions(columns={"Wirkarbeit [kWh]": "machine_3"}, ignore_unknown=True)

    found = preview(file, said.meter_table, said.meter, options)

    taken = found.taken_for
    assert taken.format == "text in UTF-8 that separates its columns by ';'"
    assert (taken.decimal, taken.times, taken.zone) == (",", "day.month.year", "in Europe/Berlin")
    assert taken.doubled_hour.startswith("8 rows in hours that clocks show twice")
    assert (taken.kind, taken.unit, taken.label) == ("energy_kwh_per_interval", "kWh", "start")
    assert (taken.machines, taken.ignored_columns) == (["machine_3"], ["Status"])
    assert (taken.interval_minutes, taken.missing, taken.readings) == (15.0, 2, 118)
    assert (taken.first, taken.last) == (quarters[0], quarters[-1])
    assert len(taken.lines()) == 3
    assert found.readings[0] == {
        "line": 2,
        "utc_timestamp": quarters[0].tz_convert("UTC"),
        "machine": "machine_3",
        "reading": 0.5,
    }
    assert json.dumps(found.readings, default=str)
