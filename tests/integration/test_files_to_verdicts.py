"""A file as people's tools write it, loaded, learnt and judged: every time and power is right.

Each file holds four days around a change of clocks. What a machine draws in a quarter-hour follows
from when it begins, so that an hour too early, too late, lost or doubled shows.
"""

import io
from collections.abc import Callable
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest

from anomaly.database.connection import Database
from anomaly.database.results import Origin
from anomaly.loading.files import ingest
from anomaly.loading.options import FileOptions
from anomaly.scoring.publishing import Job
from anomaly.scoring.scorer import Scorer
from anomaly.settings import Settings, load_settings
from anomaly.windows import Window
from deployment import TESTS, rows, train_in_force
from integration_settings import SMALL

SPRING, AUTUMN = "2024-03-30", "2024-10-26"
QUARTER = pd.Timedelta("15min")


def readings(start: str, zone: str) -> pd.DataFrame:
    """Four local days of two machines: when each quarter-hour begins, and their mean kW in it."""
    begin = pd.Timestamp(start, tz=zone)
    at = pd.date_range(begin, begin + pd.DateOffset(days=4), freq=QUARTER, inclusive="left")
    hours = (at.tz_convert("UTC").hour + at.minute / 60).to_numpy()
    return pd.DataFrame({"at": at, "one": 4 + hours, "two": 40 - hours})


def german_portal(frame: pd.DataFrame) -> bytes:
    """Energy per quarter-hour in kWh, labelled by its end on the local clock, newest text style."""
    ends = (frame["at"] + QUARTER).dt.tz_localize(None)
    lines = [
        f"{end:%d.%m.%Y};{end:%H:%M};{one / 4:.4f};{two / 4:.4f};W\r\n".replace(".", ",", 0)
        for end, one, two in zip(ends, frame["one"], frame["two"], strict=True)
    ]
    lines = [line[:16] + line[16:].replace(".", ",") for line in lines]
    head = "Lastgang Werk Süd\r\nZählpunkt;DE001\r\n\r\nDatum;Uhrzeit;Halle 1;Halle 2;Status\r\n"
    return (head + ";;[kWh];[kWh];\r\n" + "".join(lines)).encode("cp1252")


def green_button(frame: pd.DataFrame) -> bytes:
    """Energy of one meter, each line from its beginning to its end on the local clock."""
    begins = frame["at"].dt.tz_localize(None)
    ends = (frame["at"] + QUARTER).dt.tz_localize(None)
    lines = [
        f"{begin:%Y-%m-%d %H:%M:%S}\u00a0to {end:%Y-%m-%d %H:%M:%S},{one / 4},\n"
        for begin, end, one in zip(begins, ends, frame["one"], strict=True)
    ]
    head = "Energy Usage Information,,\nFor location: here,,\n,,\n"
    names = "Energy delivered time period,Usage (Real energy in kilowatt-hours),Reading quality\n"
    return (head + names + "".join(lines)).encode()


def workbook(frame: pd.DataFrame) -> bytes:
    """Mean power in kW on the local clock, one row per machine and time, as Excel keeps it."""
    long = frame.assign(at=frame["at"].dt.tz_localize(None)).melt("at", ["one", "two"])
    table = long.set_axis(["Time", "Meter", "Power [kW]"], axis="columns")
    buffer = io.BytesIO()
    table.replace({"one": 1, "two": 2}).to_excel(buffer, index=False, sheet_name="Export")
    return buffer.getvalue()


def counters(frame: pd.DataFrame) -> pd.DataFrame:
    """Counters in Wh: at each time what was used since the beginning."""
    used = frame[["one", "two"]].cumsum() * 250
    return used.set_axis(["machine_1", "machine_2"], axis="columns").assign(at=frame["at"])


def parquet(frame: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    counters(frame).set_index("at").to_parquet(buffer)
    return buffer.getvalue()


def json_lines(frame: pd.DataFrame) -> bytes:
    table = counters(frame).assign(at=frame["at"].map(pd.Timestamp.isoformat))
    return table.to_json(orient="records", lines=True).encode()


def from_duckdb(frame: pd.DataFrame, folder: Path) -> bytes:
    with duckdb.connect() as connection:
        connection.register("readings", counters(frame).assign(at=frame["at"].dt.tz_convert("UTC")))
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(f"COPY readings TO '{folder}/out.csv' (DELIMITER '|', HEADER)")
    return (folder / "out.csv").read_bytes()


def us_meter(frame: pd.DataFrame) -> bytes:
    """Smart Meter Texas: month first, date and time apart, energy of one meter."""
    begins = frame["at"].dt.tz_localize(None)
    lines = [
        f"'10443720000,{begin:%m/%d/%Y}, {begin:%H:%M},{one / 4},A\n"
        for begin, one in zip(begins, frame["one"], strict=True)
    ]
    return ("ESIID,USAGE_DATE,USAGE_START_TIME,USAGE_KWH,ESTIMATED\n" + "".join(lines)).encode()


INTERVAL = {"reading_kind": "energy_kwh_per_interval", "source_timezone": "Europe/Berlin"}
COUNTER = {"reading_unit": "Wh"}
CASES: dict[str, tuple[Callable[..., bytes], dict[str, object], FileOptions]] = {
    "German portal": (
        german_portal,
        INTERVAL | {"timestamp_label": "end"},
        FileOptions({"Halle 1": "machine_1", "Halle 2": "machine_2"}, ignore_unknown=True),
    ),
    "Green Button": (
        green_button,
        INTERVAL,
        FileOptions(
            {"Usage (Real energy in kilowatt-hours)": "machine_1"}, ignore_unknown=True
        ),
    ),
    "Smart Meter Texas": (
        us_meter,
        INTERVAL | {"source_timezone": "America/Chicago"},
        FileOptions(
            {
                "USAGE_DATE": "utc_timestamp",
                "USAGE_START_TIME": "utc_timestamp",
                "USAGE_KWH": "machine_1",
            },
            ignore_unknown=True,
        ),
    ),
    "workbook, power": (
        workbook,
        {"reading_kind": "power_w", "source_timezone": "Europe/Berlin"},
        FileOptions({"Meter": "machine_id", "Power [kW]": "reading"}),
    ),
    "Parquet, counters": (parquet, COUNTER, FileOptions()),
    "JSON lines, counters": (json_lines, COUNTER, FileOptions()),
    "DuckDB, counters": (from_duckdb, COUNTER, FileOptions()),
}  # fmt: skip


@pytest.mark.parametrize("start", [SPRING, AUTUMN])
@pytest.mark.parametrize("case", CASES)
def test_every_reading_of_a_file_is_judged_at_its_time_by_its_power(
    case: str, start: str, database: Database, settings: Settings, tmp_path: Path
) -> None:
    write, said, options = CASES[case]
    settings = load_settings(
        {}, models_url=settings.models.models_url, max_gap_days=7, **SMALL, **said
    )
    zone = str(said.get("source_timezone", "Europe/Berlin"))
    frame = readings(start, zone)
    file = tmp_path / "export"
    more = [tmp_path] if write is from_duckdb else []
    file.write_bytes(write(frame, *more))

    report = ingest(database, settings.meter_table, settings.meter, file, options)
    window = Window(frame["at"].iloc[0].to_pydatetime(), frame["at"].iloc[-1] + QUARTER)
    train_in_force(database, settings, window)
    Scorer(database, settings).score_range(window, Job(Origin.BACKFILL, TESTS))

    for machine, column in enumerate(["one", "two"][: len(report.machines)], 1):
        verdicts = pd.DataFrame(
            rows(
                database,
                "SELECT utc_timestamp, power_kw, quality FROM anomaly.anomaly_results"
                f" WHERE machine_id = {machine} ORDER BY 1",
            ),
            columns=["at", "power", "quality"],
        )
        begins = frame["at"].dt.tz_convert("UTC")
        assert verdicts["at"].tolist() == begins.tolist()
        assert verdicts["quality"].tolist() == ["first"] + ["ok"] * (len(frame) - 1)
        # A counter read at the beginning of a quarter-hour tells what the one before it used.
        np.testing.assert_allclose(verdicts["power"][1:], frame[column][1:], atol=2e-4)


def test_energy_today_goes_to_verdicts_without_a_meter_fault(
    database: Database, settings: Settings, tmp_path: Path
) -> None:
    frame = readings(AUTUMN, "Europe/Berlin")
    local = frame["at"].dt.tz_localize(None)
    used = (frame["one"] / 4).groupby(local.dt.date).cumsum()
    lines = [f"{at.isoformat()},{energy}\n" for at, energy in zip(frame["at"], used, strict=True)]
    file = tmp_path / "shelly.csv"
    file.write_text("time,machine_1\n" + "".join(lines))
    settings = load_settings(
        {}, models_url=settings.models.models_url, reading_kind="energy_kwh_today", **SMALL
    )

    ingest(database, settings.meter_table, settings.meter, file)
    window = Window(frame["at"].iloc[0].to_pydatetime(), frame["at"].iloc[-1] + QUARTER)
    train_in_force(database, settings, window)
    Scorer(database, settings).score_range(window, Job(Origin.BACKFILL, TESTS))

    found = rows(
        database,
        "SELECT utc_timestamp, power_kw, quality FROM anomaly.anomaly_results ORDER BY 1",
    )
    midnight = (local.dt.hour + local.dt.minute == 0).tolist()
    for (_, power, quality), restarts, kw in zip(found, midnight, frame["one"], strict=True):
        assert quality == ("first" if restarts else "ok")
        assert (power is None) if restarts else power == pytest.approx(kw)
    assert rows(database, "SELECT count(*) FROM anomaly.incidents WHERE kind = 'meter'") == [(0,)]
