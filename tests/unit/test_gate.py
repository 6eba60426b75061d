"""The judge of a challenger: what it measures, and what it refuses in words."""

import re
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pandas as pd
import pytest

from anomaly.detectors.prototype import PrototypeDetector, fit_forest
from anomaly.evaluation.our_detector import measured_readings
from anomaly.lifecycle.gate import (
    CHALLENGER,
    Judgement,
    JudgingDays,
    Standing,
    judge_challenger,
    refusals,
)
from anomaly.lifecycle.model_card import model_card, pictures
from anomaly.lifecycle.training import PARAMETERS, kept_parameters
from anomaly.models.drift import Reference, psi
from anomaly.models.model import Model
from anomaly.readings.meter_faults import profile_machines
from anomaly.settings import load_settings
from anomaly.windows import Window
from deployment import START, at, counters

SETTINGS = load_settings({}, forest_trees=30)
DAY = 96
GOOD = Standing(alerts=20, alert_rate=2.0, anomaly_share=0.05, recall=0.8)
FINE = Judgement(
    champion_version=1,
    champion_trained_to=at(14 * DAY).isoformat(),
    judged_from=at(14 * DAY).isoformat(),
    judged_to=at(21 * DAY).isoformat(),
    machines=10,
    challenger=GOOD,
    champion=GOOD,
    agreement=0.99,
    drift=[{"machine_id": m, "signal": "power_kw", "psi": 0.05} for m in range(10)],
)


def measured(first, end, machines=2, seed=1):
    wide = counters(end, machines, seed)
    long = wide.melt("utc_timestamp", var_name="machine_id", value_name="reading")
    long["machine_id"] = long["machine_id"].str.removeprefix("machine_").astype("int64")
    long["utc_timestamp"] = long["utc_timestamp"].astype("datetime64[us, UTC]")
    frame = measured_readings(long, SETTINGS.meter)
    return frame[frame["utc_timestamp"] >= at(first)].reset_index(drop=True)


def model(readings):
    detector = PrototypeDetector.compile(fit_forest(readings, SETTINGS.training), SETTINGS.meter)
    return Model(detector, profile_machines(readings), "energy_kwh", 15, Reference.of(readings))


def days(first, end, **options):
    return JudgingDays(measured(first - 2 * DAY, end, **options), Window(at(first), at(end)))


@pytest.fixture(scope="module")
def compared():
    before, after = measured(0, 10 * DAY), measured(4 * DAY, 14 * DAY)
    return judge_challenger(
        model(after), model(before), 1, after, days(14 * DAY, 21 * DAY), SETTINGS
    )


def test_a_challenger_of_a_usual_week_passes_and_is_measured(compared):
    judgement = compared.judgement

    assert judgement.passed
    assert judgement.agreement > 0.95
    assert judgement.events > 20
    assert judgement.challenger.recall > judgement.baselines["random"]
    assert set(judgement.baselines) == {"random", "|diff|", "hour-of-week residual"}
    assert judgement.alerts_by_machine[CHALLENGER].keys() == {"1", "2"}
    assert max(row["psi"] for row in judgement.drift) < 0.1


def test_the_same_models_and_readings_give_the_same_judgement(compared):
    before, after = measured(0, 10 * DAY), measured(4 * DAY, 14 * DAY)
    again = judge_challenger(
        model(after), model(before), 1, after, days(14 * DAY, 21 * DAY), SETTINGS
    )

    assert again.judgement == compared.judgement


def test_a_challenger_of_a_corrupted_week_is_refused_with_reasons():
    good = measured(0, 10 * DAY)
    noise = np.random.default_rng(5).normal(0, 60, len(good))
    bad = good.assign(
        power_diff=good["power_diff"] + noise, power_kw=good["power_kw"] + np.abs(noise)
    )

    judgement = judge_challenger(
        model(bad), model(good), 3, bad, days(14 * DAY, 21 * DAY), SETTINGS
    ).judgement

    assert not judgement.passed
    (reason,) = judgement.reasons
    assert "of the injected faults, the champion" in reason
    assert max(row["psi"] for row in judgement.drift) > SETTINGS.gate.gate_psi


def test_a_machine_that_the_challenger_does_not_know_is_named():
    both, one = measured(0, 10 * DAY), measured(0, 10 * DAY, machines=1)

    judgement = judge_challenger(
        model(one), model(both), 1, one, days(14 * DAY, 21 * DAY), SETTINGS
    ).judgement

    assert list(judgement.missing_machines) == [2]
    assert any("does not know 1 of 2 machines" in reason for reason in judgement.reasons)


def test_a_first_version_is_measured_and_never_refused():
    readings = measured(0, 10 * DAY)

    judgement = judge_challenger(
        model(readings), None, None, readings, days(14 * DAY, 21 * DAY), SETTINGS
    ).judgement

    assert judgement.passed
    assert judgement.champion is None
    assert judgement.challenger.alert_rate > 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"challenger": replace(GOOD, alerts=54, alert_rate=5.4)},
            "5.4 alerts per machine-week, the champion 2.0: at most 4.0 are allowed, and chance"
            " does not explain 54 alerts in 10.0 machine-weeks",
        ),
        (
            {"challenger": replace(GOOD, alerts=2, alert_rate=0.2, anomaly_share=1.0)},
            "calls 100.0% of the readings abnormal, the champion 5.0%: at most 10.0%",
        ),
        ({"challenger": replace(GOOD, recall=0.69)}, "finds 69% of the injected faults"),
        (
            {"challenger": replace(GOOD, recall=0.69, recall_interval=(0.6, 0.79))},
            "finds 69% of the injected faults",
        ),
        ({"missing_machines": [4]}, "does not know 1 of 10 machines"),
    ],
)
def test_each_limit_refuses_with_its_own_reason(change, words):
    (reason,) = refusals(replace(FINE, **change), SETTINGS.training, SETTINGS.gate)

    assert words in reason
    assert "ANOMALY_GATE_" in reason


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"challenger": replace(GOOD, alerts=40, alert_rate=4.0)},
        {"challenger": replace(GOOD, alerts=53, alert_rate=5.3)},  # chance gives 53 where 40 are
        {"challenger": replace(GOOD, recall=0.7000001)},
        {"challenger": replace(GOOD, recall=None)},
        {"challenger": replace(GOOD, anomaly_share=0.1)},
        {
            "challenger": replace(GOOD, anomaly_share=0.6),
            "champion": replace(GOOD, anomaly_share=0.3),
        },
        {"challenger": replace(GOOD, alert_rate=0.0)},
        {"champion": None},
        {"champion_version": None, "challenger": replace(GOOD, recall=0.0)},
        {"agreement": 0.0},
        {"drift": [{"machine_id": m, "signal": "power_kw", "psi": 9.0} for m in range(10)]},
        {"challenger": replace(GOOD, recall=0.69, recall_interval=(0.55, 0.81))},
        {"challenger": replace(GOOD, recall=0.5), "champion": replace(GOOD, luck=0.7)},
        {
            "challenger": replace(GOOD, recall=0.5),
            "champion_trained_to": at(-8 * DAY).isoformat(),  # more than four weeks ago
        },
    ],
)
def test_what_lies_within_the_limits_passes(change):
    assert refusals(replace(FINE, **change), SETTINGS.training, SETTINGS.gate) == []


def test_the_index_is_symmetric_finite_and_nought_for_equal_shares():
    assert psi([1, 2, 3], [10, 20, 30]) == pytest.approx(0, abs=1e-12)
    assert psi([5, 0], [0, 5]) == psi([0, 5], [5, 0])
    assert np.isfinite(psi([5, 0], [0, 5]))


def test_a_machine_that_never_moves_has_not_drifted():
    still = measured(0, 3 * DAY).assign(power_kw=0.0, power_diff=0.0, flat_hours=1.0)

    assert Reference.of(still).drift(still)["psi"].max() == 0


def test_a_reference_read_back_measures_the_same_drift():
    before, after = measured(0, 3 * DAY), measured(3 * DAY, 6 * DAY)
    reference = Reference.of(before)

    again = Reference.from_arrays(reference.arrays())

    pd.testing.assert_frame_equal(again.drift(after), reference.drift(after))


def test_the_card_names_window_judgement_drift_and_pictures(compared):
    details = {
        "detector": "prototype",
        "readings": 1920,
        "machines": 2,
        "trained_from": START,
        "trained_to": START + timedelta(days=14),
        "registered_by": "test",
        "parameters": {"forest_trees": 30},
    }

    card = model_card(2, details, compared.judgement)
    shown = pictures(compared, "prototype")

    assert "# Model version 2" in card
    assert "The gate lets it replace version 1" in card
    assert "| injected faults found |" in card
    for name, content in shown.items():
        assert f"({name})" in card
        assert content.startswith(b"\x89PNG")
    assert sorted(shown) == ["alerts.png", "drift.png", "scores.png"]


def test_a_refused_card_lists_the_reasons():
    details = {"detector": "prototype", "readings": 1, "machines": 1, "trained_from": START,
               "trained_to": START, "registered_by": "test", "parameters": {}}  # fmt: skip

    card = model_card(2, details, Judgement(1, reasons=("it is blind",)))

    assert "**Refused**: version 1 stays in force.\n\n- it is blind" in card


@pytest.mark.parametrize(
    ("detector", "left_out"),
    [
        ("signals", {"forest_trees", "forest_max_samples", "forest_contamination",
                     "forest_one_hot_machines"}),
        ("prototype", {"alert_budget"}),
    ],
)  # fmt: skip
def test_the_card_shows_only_the_settings_of_its_detector(detector, left_out):
    parameters = kept_parameters(SETTINGS)
    details = {"detector": detector, "readings": 1, "machines": 1, "trained_from": START,
               "trained_to": START, "registered_by": "test", "parameters": parameters}  # fmt: skip

    card = model_card(1, details, Judgement(None))

    shown = set(re.findall(r"\| `(\w+)` \|", card))
    assert shown == set(PARAMETERS) - left_out
