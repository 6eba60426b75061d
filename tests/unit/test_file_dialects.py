"""Random tables in random dialects are read back equal, or refused; never anything else."""

import csv
import gzip
import io
from dataclasses import dataclass

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis_profiles import PROPERTY

from anomaly.errors import IngestError
from anomaly.loading.files import read_readings
from anomaly.settings import load_settings

ZONES = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata"]
DATES = [
    "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M", "%Y/%m/%d %H:%M", "%d.%m.%Y %H:%M", "%d.%m.%y %H:%M:%S",
    "%d/%m/%Y %H:%M", "%m/%d/%Y %I:%M %p", "%d-%b-%Y %H:%M", "%Y%m%d%H%M", "%Y%m%d%H%M%S",
]  # fmt: skip
MISSING = ["", "NaN", "NULL", "n/a", "#N/A", " "]
CAN_BE_TWO = "in the file tells which"


@dataclass(frozen=True)
class Dialect:
    """How a table is written."""

    delimiter: str
    decimal: str
    thousands: str
    dates: str
    zone: str
    offset: bool
    split: bool
    midnight: bool
    quoting: int
    newline: str
    encoding: str
    preamble: list[str]
    missing: str
    backwards: bool
    zipped: bool
    is_long: bool


DIALECTS = st.builds(
    Dialect,
    delimiter=st.sampled_from(",;\t|"),
    decimal=st.sampled_from(".,"),
    thousands=st.sampled_from(["", "", "group", " "]),
    dates=st.sampled_from(DATES),
    zone=st.sampled_from(ZONES),
    offset=st.booleans(),
    split=st.booleans(),
    midnight=st.booleans(),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    newline=st.sampled_from(["\n", "\r\n", "\r"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "cp1252", "utf-32"]),
    preamble=st.sampled_from(
        [[], [], ["sep="], ["Report", ""], ["Plant: north", "From: 1 May", "", "Data"]]
    ),
    missing=st.sampled_from(MISSING),
    backwards=st.booleans(),
    zipped=st.booleans(),
    is_long=st.booleans(),
)
READINGS = st.one_of(
    st.none(),
    st.integers(0, 10**7).map(float),
    st.integers(0, 10**8).map(lambda n: n / 1000),
    st.integers(-(10**6), 10**6).map(lambda n: n / 100),
)


@st.composite
def tables(draw: st.DrawFn, zone: str) -> pd.DataFrame:
    """Whole local days of one to three machines, so that both hours of autumn are there."""
    day = draw(st.dates(pd.Timestamp("2015-01-01").date(), pd.Timestamp("2030-01-01").date()))
    near = draw(st.sampled_from([day, *pd.to_datetime(["2024-03-31", "2024-10-27", "2024-11-03"])]))
    start = pd.Timestamp(near).tz_localize(None).normalize()
    end = start + pd.Timedelta(days=draw(st.integers(1, 2)))
    moments = pd.date_range(
        start.tz_localize(zone), end.tz_localize(zone), freq="1h", inclusive="left"
    )
    machines = draw(st.integers(1, 3))
    rows = st.lists(st.tuples(*[READINGS] * machines), min_size=len(moments), max_size=len(moments))
    names = [f"machine_{n}" for n in range(1, machines + 1)]
    cells = pd.DataFrame(draw(rows), columns=names, dtype=float)
    return cells.assign(at=moments)


def number_text(value: float | None, dialect: Dialect) -> str:
    if value is None or pd.isna(value):
        return dialect.missing
    group = {"": "", "group": ",", " ": " "}[dialect.thousands]
    text = f"{value:{',' if group else ''}.3f}".rstrip("0").rstrip(".")
    if group == "," == dialect.decimal:
        group = "'"
    marks = {",": group, ".": dialect.decimal}
    return "".join(marks.get(letter, letter) for letter in text)


def time_text(moment: pd.Timestamp, dialect: Dialect) -> list[str]:
    text = moment.strftime(dialect.dates)
    if dialect.offset and dialect.dates.startswith("%Y-"):
        return [text + moment.strftime("%z")]
    if dialect.midnight and "%H:%M" in dialect.dates and f"{moment:%H:%M}" == "00:00":
        before = (moment.tz_localize(None) - pd.Timedelta(hours=1)).strftime(dialect.dates)
        text = before.replace("23:00", "24:00")
    return text.split(" ", 1) if dialect.split and dialect.dates in DATES[1:6] else [text]


def written(table: pd.DataFrame, dialect: Dialect) -> bytes:
    machines = [name for name in table if name != "at"]
    table = table[::-1] if dialect.backwards else table
    two = len(time_text(table["at"].iloc[0], dialect)) == 2
    header = ["Date", "Time"] if two else ["Timestamp"]
    rows = []
    for record in table.to_dict("records"):
        time = time_text(record["at"], dialect)
        cells = [number_text(record[name], dialect) for name in machines]
        if dialect.is_long:
            rows += [[*time, name, cell] for name, cell in zip(machines, cells, strict=True)]
        else:
            rows.append([*time, *cells])
    header += ["Machine_ID", "Reading"] if dialect.is_long else [name.title() for name in machines]
    buffer = io.StringIO()
    for line in dialect.preamble:
        buffer.write(f"sep={dialect.delimiter}" if line == "sep=" else line)
        buffer.write(dialect.newline)
    writer = csv.writer(
        buffer, delimiter=dialect.delimiter, quoting=dialect.quoting, lineterminator=dialect.newline
    )
    writer.writerows([header, *rows])
    content = buffer.getvalue().encode(dialect.encoding)
    return gzip.compress(content, mtime=0) if dialect.zipped else content


@settings(PROPERTY, max_examples=10 * PROPERTY.max_examples)
@given(data=st.data(), dialect=DIALECTS)
def test_a_table_is_read_back_equal_or_refused(
    data: st.DataObject, dialect: Dialect, tmp_path_factory: pytest.TempPathFactory
) -> None:
    table = data.draw(tables(dialect.zone))
    file = tmp_path_factory.mktemp("dialect") / "export"
    file.write_bytes(written(table, dialect))
    said = load_settings(
        {}, source_timezone=dialect.zone, reading_kind="power_w", interval_minutes=60
    )
    machines = [name for name in table if name != "at"]
    expected = table.set_index("at")[machines].dropna(how="all")

    try:
        found = read_readings(file, said.meter_table, said.meter)
    except IngestError as error:
        if CAN_BE_TWO in str(error) or expected.empty:
            return
        raise

    found = found.set_index("utc_timestamp").sort_index()[machines].dropna(how="all")
    pd.testing.assert_frame_equal(
        found,
        expected.set_axis(expected.index.tz_convert("UTC"), axis="index"),
        check_names=False,
        check_freq=False,
        check_index_type=False,
    )
