"""The weekly model on real readings: trained on the first six weeks, judged on the later ones."""

from datetime import UTC, datetime, timedelta

import pytest

from anomaly.lifecycle.promotion import NextStep, Promoter, next_step
from anomaly.lifecycle.training import Trainer
from anomaly.loading.files import ingest
from anomaly.settings import DetectorName, load_settings
from anomaly.windows import Window
from deployment import execute

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

FIRST = datetime(2017, 3, 7, 4, 45, tzinfo=UTC)
WEEK = timedelta(weeks=1)


@pytest.mark.parametrize("detector", ["prototype", "signals"])
def test_six_weeks_train_a_version_that_passes_and_finds_more_than_baselines(
    database, tmp_path, shared_data, record_property, detector
):
    settings = load_settings(
        {},
        models_url=str(tmp_path / "models"),
        detector=DetectorName(detector),
        judging_days=28,
        source_timezone="UTC",
    )
    ingest(database, settings.meter_table, settings.meter, shared_data / "industrial3_15min.csv")
    trainer = Trainer(database, settings)
    first = trainer.challenge(Window(FIRST, FIRST + 5 * WEEK), by="test")
    execute(database, "UPDATE anomaly.machines SET time_zone = 'Europe/Berlin'")
    Promoter(database, settings).promote(first.version, by="test", reason="first")

    report = trainer.challenge(Window(FIRST, FIRST + 6 * WEEK), by="test")

    judgement = report.judgement
    assert next_step(report.judgement, settings.gate) is NextStep.PROMOTE, judgement.reasons
    assert judgement.judged_from == (FIRST + 6 * WEEK).isoformat()
    assert judgement.challenger.recall > max(judgement.baselines.values())
    for name in ("challenger", "champion"):
        standing = vars(judgement)[name]
        record_property(
            f"{detector}, {name}: alerts per machine-week", round(standing.alert_rate, 2)
        )
        record_property(f"{detector}, {name}: faults found", round(standing.recall, 3))
        record_property(
            f"{detector}, {name}: 95 %", [round(end, 3) for end in standing.recall_interval]
        )
    record_property(
        f"{detector}: baselines", {k: round(v, 3) for k, v in judgement.baselines.items()}
    )
    record_property(f"{detector}: agreement", round(judgement.agreement, 4))
    record_property(f"{detector}: kappa", round(judgement.kappa, 3))
    record_property(f"{detector}: faults injected", judgement.events)
    record_property(f"{detector}: largest PSI", max(row["psi"] for row in judgement.drift))
    record_property(f"{detector}: alerts by machine", dict(judgement.alerts_by_machine))
