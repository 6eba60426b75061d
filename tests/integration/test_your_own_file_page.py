"""The page "Your own file" is followed word for word, in a shell, on a fresh database."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from anomaly.database.connection import Database
from anomaly.demo.embedded_postgres import EmbeddedPostgres
from deployment import execute, rows

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "your-own-file.md"

Run = Callable[[str], subprocess.CompletedProcess[str]]


def blocks(kind: str) -> list[str]:
    text = PAGE.read_text(encoding="utf-8")
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.S | re.M)
    return [block for name, block in fences if name == kind]


@pytest.fixture
def run(database: Database, tmp_path: Path) -> Run:
    """Run commands in one folder, with `anomaly` on PATH and the database's address."""
    url = database.engine.url.render_as_string(hide_password=False)
    environment = os.environ | {
        "ANOMALY_DATABASE_URL": url,
        "ANOMALY_MODELS_URL": str(tmp_path / "models"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "ANOMALY_FOREST_TREES": "20",
    }

    def run(commands: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-e", "-c", commands],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_the_page_leads_from_a_file_to_verdicts(run: Run, database: Database) -> None:
    make, refused, look, load = blocks("sh")

    assert run(make).returncode == 0
    first = run(refused)
    assert first.returncode == 1
    assert "has no machine column, it has 'Datum', 'Uhrzeit', 'Halle 1 [kWh]'" in first.stderr
    preview = run(look)
    assert preview.returncode == 0, preview.stderr
    assert "separates its columns by ';', header in line 3" in preview.stdout
    assert rows(database, "SELECT count(*) FROM anomaly.meter_readings") == [(0,)]
    exports = "\n".join(line for line in look.splitlines() if line.startswith("export"))
    done = run(f"{exports}\n{load}")
    assert done.returncode == 0, done.stderr + done.stdout

    assert "energy_kwh_per_interval in kWh (rises in" in done.stdout
    week = 2 * (7 * 96 - 8)  # the file ends at midnight in Berlin, two hours before UTC's
    assert rows(database, "SELECT count(*) FROM anomaly.anomaly_results") == [(week,)]
    # 1.500 + 0.0 kWh in the quarter-hour that ended at midnight: 6 kW; at 00:15 it was 1.6 kWh.
    powers = rows(
        database,
        "SELECT power_kw FROM anomaly.anomaly_results WHERE machine_id = 1"
        " AND utc_timestamp >= '2026-05-29 21:45Z' ORDER BY utc_timestamp LIMIT 2",
    )
    assert [round(power, 6) for (power,) in powers] == [6.0, 6.4]


def test_a_table_of_ones_own_and_a_view_of_it(
    run: Run, database: Database, postgres: EmbeddedPostgres
) -> None:
    make, *_ = blocks("sh")
    table, view = blocks("sql")
    load, read = (block for block in blocks("") if "export" in block)
    run(make)
    execute(database, table)
    kinds = (
        "export ANOMALY_SOURCE_TIMEZONE=Europe/Berlin ANOMALY_TIMESTAMP_LABEL=end"
        " ANOMALY_READING_KIND=energy_kwh_per_interval\n"
    )

    done = run(kinds + load)

    assert done.returncode == 0, done.stderr
    stored = "SELECT count(*), count(DISTINCT machine), min(measured_at)::text FROM plant.readings"
    assert rows(database, stored) == [(2 * 35 * 96, 2, "2026-04-30 22:15:00+00")]
    execute(database, view)
    judged = run(
        f"{kinds}{load.replace('anomaly ingest', ': anomaly ingest')}\n{read}\n"
        "anomaly train --end 2026-05-29 --promote\n"
        "anomaly score --start 2026-06-01 --end 2026-06-02"
    )
    assert judged.returncode == 0, judged.stderr
    # At 08:30 by day, 10 + 30 % 7 / 10 = 10.2 kWh of a quarter-hour: 40.8 kW.
    power = "SELECT max(power_kw) FROM anomaly.anomaly_results WHERE utc_timestamp::time = '06:15'"
    assert rows(database, power) == [(pytest.approx(40.8),)]
