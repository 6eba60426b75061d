"""The page Somebody else's meter table, as its readers do it: SQL by SQL, and the settings."""

import re
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from anomaly.database.connection import Database
from anomaly.database.migrations import migrate
from anomaly.operations.doctor import Level, examine
from anomaly.settings import load_settings
from deployment import at, execute, rows, score, train
from integration_settings import SMALL

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "somebody-elses-meter-table.md"
ZONE = ZoneInfo("Europe/Berlin")
DAYS = 9


def blocks(kind):
    return re.findall(rf"^```{kind}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.S | re.M)


@pytest.fixture
def plant(postgres, database):
    """The product's database as a log-in of its own, and its meter table of another owner."""
    name = database.engine.url.database
    postgres.create_user("plant_owner", "secret")
    execute(database, "CREATE SCHEMA plant AUTHORIZATION plant_owner")
    owner = Database(postgres.url(name, "plant_owner", "secret"), load_settings({}).database)
    yield database, owner
    owner.dispose()
    execute(database, "DROP SCHEMA plant CASCADE")
    execute(database, "DROP ROLE plant_owner")


@pytest.mark.parametrize("table", ["saws", "meters"])
def test_the_page_leads_to_verdicts(plant, tmp_path, table):
    database, owner = plant
    make_table, make_view, make_loader, grants = blocks("sql")
    file = tmp_path / "anomaly.toml"
    (settings_block,) = blocks("toml")
    file.write_text(settings_block.replace('"saws"', f'"{table}"'))
    assert tomllib.loads(file.read_text())["meter_table"]["source_table"] == table
    settings = load_settings(
        {"ANOMALY_CONFIG_FILE": str(file)}, models_url=str(tmp_path / "models"), **SMALL
    )
    missing = migrate(database, settings.meter_table, settings.meter).notes
    assert any(f"the meter table plant.{table} is not there yet" in note for note in missing)

    execute(owner, make_table)
    execute(owner, make_view)
    name = database.engine.url.database
    execute(database, make_loader.replace("DATABASE plant", f'DATABASE "{name}"'))
    execute(database, "DROP OWNED BY plant_loader; DROP ROLE plant_loader")
    execute(
        owner,
        "INSERT INTO plant.meters (measured_at, machine, kwh)"
        " SELECT moment AT TIME ZONE 'Europe/Berlin', machine,"
        "        extract(epoch FROM moment - CAST(:start AS timestamptz)) / 900 * power"
        "  FROM generate_series(CAST(:start AS timestamptz), :last, interval '15 min') AS moment,"
        "       (VALUES ('Saw 1', 1.5), ('Saw 2', 2), ('Press', 9)) AS machines (machine, power)",
        start=at(0),
        last=at(DAYS * 96 - 1),
    )
    execute(owner, grants.replace("plant.saws", f"plant.{table}"))

    notes = migrate(database, settings.meter_table, settings.meter).notes
    assert not [note for note in notes if table in note]
    found = list(examine(database, settings, datetime.now(UTC)))
    assert not [one for one in found if one.level is Level.ERROR], found
    assert not [one for one in found if one.about == "meter table" and one.level is Level.WARNING]
    train(database, settings)
    score(database, settings, 0, DAYS * 96)
    machines = rows(
        database,
        "SELECT m.source_key, m.time_zone, count(*) FROM anomaly.anomaly_results r"
        " JOIN anomaly.machines m USING (machine_id) GROUP BY 1, 2 ORDER BY 1",
    )
    saws = [("Saw 1", ZONE.key, DAYS * 96), ("Saw 2", ZONE.key, DAYS * 96)]
    assert machines == (saws if table == "saws" else [("Press", ZONE.key, DAYS * 96), *saws])
