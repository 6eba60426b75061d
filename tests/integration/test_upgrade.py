"""A deployment of an earlier version is migrated and goes on, and its verdicts stay."""

import gzip
import subprocess
import zipfile
from pathlib import Path

import pytest

from anomaly.database.connection import Database
from anomaly.database.migrations import check_migrated, migrate
from anomaly.database.sql_files import sql_files
from anomaly.errors import RefusedError
from anomaly.lifecycle.promotion import Promoter
from anomaly.settings import load_settings
from deployment import at, rows, score
from integration_settings import SMALL

EARLIER = Path(__file__).parents[1] / "upgrade"
DAY = 96


@pytest.fixture
def earlier(postgres, tmp_path):
    """The restored deployment, not migrated yet, and its settings."""
    postgres.create_database("earlier")
    admin = Database(postgres.url("earlier"), load_settings({}).database)
    with admin.transaction() as transaction:
        transaction.script("roles.sql")
    admin.dispose()
    dump = gzip.decompress((EARLIER / "deployment.sql.gz").read_bytes())
    # Written by pg_dump 17, whose settings an older server does not know.
    dump = dump.replace(b"SET transaction_timeout = 0;\n", b"")
    url = postgres.url("earlier").replace("postgresql+psycopg2", "postgresql")
    psql = [str(postgres.psql), "--quiet", "--set=ON_ERROR_STOP=1", url]
    done = subprocess.run(psql, input=dump, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    with zipfile.ZipFile(EARLIER / "models.zip") as archive:
        archive.extractall(tmp_path / "models")
    settings = load_settings({}, models_url=str(tmp_path / "models"), **SMALL)
    database = Database(postgres.url("earlier"), settings.database)
    yield database, settings
    database.dispose()
    postgres.drop_database("earlier")


def test_an_earlier_deployment_is_migrated_and_goes_on(earlier):
    database, settings = earlier
    with pytest.raises(RefusedError, match=r"lacks 0013_backfills\.sql: run `anomaly migrate`"):
        check_migrated(database)
    # Another processor than the one that scored then may compute another last bit.
    score_shown = "round(anomaly_score::numeric, 12)"
    verdict = f"SELECT machine_id, utc_timestamp, {score_shown}, anomaly, reason, model_version"
    before = rows(database, f"{verdict} FROM anomaly.anomaly_results ORDER BY 1, 2")

    report = migrate(database, settings.meter_table, settings.meter)

    names = [file.removeprefix("migrations/") for file in sql_files("migrations")]
    assert report.applied == [name for name in names if name >= "0013"]
    assert rows(database, f"{verdict} FROM anomaly.anomaly_results ORDER BY 1, 2") == before
    assert migrate(database, settings.meter_table).applied == []
    assert Promoter(database, settings).verify([]) == {1: "", 2: ""}
    # What is measured has become more since: the verdicts say the same, and the energy too.
    anew = score(database, settings, 7 * DAY, 8 * DAY)
    assert (anew.updated, anew.to_abnormal, anew.to_normal) == (len(before), 0, 0)
    assert rows(database, f"{verdict} FROM anomaly.anomaly_results ORDER BY 1, 2") == before
    ((without,),) = rows(
        database,
        "SELECT count(*) FROM anomaly.anomaly_results"
        " WHERE energy_kwh IS NULL AND quality <> 'first' AND power_kw IS NOT NULL",
    )
    assert without == 0
    again = score(database, settings, 7 * DAY, 8 * DAY)
    assert (again.scored, again.unchanged, again.updated) == (len(before), len(before), 0)
    later = score(database, settings, 8 * DAY, 9 * DAY)
    assert later.inserted == 2 * DAY
    newest = rows(database, "SELECT max(utc_timestamp), max(model_version) FROM bi.verdicts")
    assert newest == [(at(9 * DAY - 1), 2)]
