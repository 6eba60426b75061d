"""The life of a version: judged, put in force, rolled back, reproduced, retired."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from anomaly.errors import ArtefactError, PromotionError
from anomaly.incidents.labels import LabelName
from anomaly.incidents.operator_feedback import label
from anomaly.lifecycle.gate import Judgement, unjudged
from anomaly.lifecycle.promotion import NextStep, Promoter, needs_a_person, next_step
from anomaly.lifecycle.reproduction import reproduce
from anomaly.lifecycle.training import Trainer
from anomaly.operations.status import status
from anomaly.settings import Promotion, load_settings
from anomaly.windows import Window
from deployment import (
    START,
    TESTS,
    at,
    change,
    counters,
    execute,
    insert,
    register_trained,
    rows,
    score,
    train,
    verdicts,
)

DAY = 96


@pytest.fixture
def filled(database):
    insert(database, counters(24 * DAY))
    return database


@pytest.fixture
def two(filled, settings):
    """Two versions, each scored with in its time: the second from the fifth day on."""
    train(filled, settings)
    score(filled, settings, 0, 4 * DAY)
    train(filled, settings.changed(random_seed=7))
    score(filled, settings, 4 * DAY, 6 * DAY)
    return filled


def challenge(database, settings, first, end):
    return Trainer(database, settings).challenge(Window(at(first), at(end)), by="test")


def judged_by(database):
    """Version and number of verdicts, by day."""
    found = rows(
        database,
        "SELECT date_trunc('day', utc_timestamp), model_version, count(*)"
        "  FROM anomaly.anomaly_results GROUP BY 1, 2 ORDER BY 1, 2",
    )
    return [(int((day - START) / timedelta(days=1)), version, n) for day, version, n in found]


def map_now(database):
    return rows(
        database,
        "SELECT version, decision, nullif(effective_from, '-infinity'), effective_to"
        "  FROM anomaly.model_in_force WHERE superseded_at IS NULL ORDER BY effective_from",
    )


# Judging ---------------------------------------------------------------------


def test_a_first_version_is_put_in_force_whatever_the_mode(filled, settings):
    report = challenge(filled, settings, 0, 8 * DAY)
    manual = settings.changed(promotion=Promotion.MANUAL)

    assert report.judgement.champion_version is None
    assert next_step(report.judgement, manual) is NextStep.PROMOTE


def test_a_challenger_is_judged_on_days_that_neither_version_has_seen(filled, settings):
    train(filled, settings, end=9 * DAY)

    report = challenge(filled, settings, 0, 8 * DAY)

    judgement = report.judgement
    assert (judgement.judged_from, judgement.judged_to) == (
        at(9 * DAY).isoformat(),
        at(16 * DAY).isoformat(),
    )
    assert judgement.passed
    assert [next_step(report.judgement, settings.changed(promotion=mode).gate) for mode in Promotion
            ] == [NextStep.PROMOTE, NextStep.ASK, NextStep.KEEP]  # fmt: skip


def test_a_challenger_trained_on_a_corrupted_week_is_registered_as_refused(filled, settings):
    train(filled, settings, end=8 * DAY)
    for quarter in range(8 * DAY, 15 * DAY, 2):  # a relay that bounces: power leaps up and down
        change(filled, quarter, "machine_1 + 60")

    report = challenge(filled, settings, 8 * DAY, 15 * DAY)

    assert next_step(report.judgement, settings.gate) is NextStep.KEEP
    ((outcome, stored),) = rows(
        filled, "SELECT status, judgement FROM anomaly.model_versions WHERE version = 2"
    )
    assert outcome == "refused"
    assert stored["reasons"] == list(report.judgement.reasons)
    assert max(row["psi"] for row in stored["drift"]) > settings.gate.gate_psi
    card = Path(report.card).read_text()
    assert all(f"- {reason}" in card for reason in stored["reasons"])

    young, old = (
        status(filled, settings.changed(gate_champion_weeks=weeks), at(24 * DAY)).problems
        for weeks in (3, 2)
    )
    assert not any("the gate refused" in problem for problem in young)
    assert any(
        "the gate refused version 2, and the training of version 1 ended 2.3 weeks before"
        in problem
        and "anomaly models promote 2" in problem
        for problem in old
    )


def test_a_version_that_could_not_be_judged_beside_an_old_champion_needs_a_person():
    gate = load_settings({}).gate
    young, old = (
        unjudged(1, START, START + timedelta(weeks=weeks), "no readings").judgement
        for weeks in (3, 6)
    )

    assert next_step(young, gate, 1) is NextStep.KEEP
    assert next_step(old, gate, 1) is NextStep.ASK
    assert needs_a_person(old, gate, 1).startswith("version 1 learnt from readings that")
    assert unjudged(None, None, START, "no readings").judgement.passed, "the first version"


def test_a_second_refusal_in_a_row_asks_a_person_and_status_says_so(filled, settings):
    train(filled, settings, end=24 * DAY)  # nothing is left that it has not seen: all are refused

    first, second = (challenge(filled, settings, 0, 8 * DAY) for _ in range(2))

    assert [first.refused_in_a_row, second.refused_in_a_row] == [1, 2]
    assert [
        next_step(report.judgement, settings.gate, report.refused_in_a_row)
        for report in (first, second)
    ] == [NextStep.KEEP, NextStep.ASK]
    assert needs_a_person(second.judgement, settings.gate, 2).startswith(
        "2 versions in a row were refused"
    )
    assert any(
        "the gate refused 2 versions in a row, so version 1 still judges" in problem
        and "anomaly models promote 3" in problem
        for problem in status(filled, settings, at(24 * DAY)).problems
    )

    Promoter(filled, settings).promote(3, by="me", reason="the plant was rebuilt")

    assert not any("in a row" in text for text in status(filled, settings, at(24 * DAY)).problems)
    assert challenge(filled, settings, 0, 8 * DAY).refused_in_a_row == 0


@pytest.mark.parametrize(
    ("weeks", "in_a_row", "mode", "step"),
    [
        (1, 1, Promotion.AUTO, NextStep.KEEP),
        (1, 2, Promotion.AUTO, NextStep.ASK),
        (1, 2, Promotion.APPROVE, NextStep.ASK),
        (1, 2, Promotion.MANUAL, NextStep.KEEP),
        (4, 1, Promotion.AUTO, NextStep.KEEP),
        (4.1, 1, Promotion.AUTO, NextStep.ASK),
    ],
)
def test_a_person_is_asked_after_refusals_in_a_row_or_beside_an_old_champion(
    settings, weeks, in_a_row, mode, step
):
    refused = Judgement(
        1,
        champion_trained_to=START.isoformat(),
        judged_to=(START + timedelta(weeks=weeks)).isoformat(),
        reasons=("it is blind",),
    )
    gate = settings.changed(promotion=mode).gate

    assert next_step(refused, gate, in_a_row) is step
    asks = bool(needs_a_person(refused, gate, in_a_row))
    assert asks == (step is NextStep.ASK or (mode is Promotion.MANUAL and in_a_row > 1))


def test_without_readings_that_neither_has_seen_nothing_is_judged_and_the_champion_stays(
    filled, settings
):
    train(filled, settings, end=24 * DAY)

    report = challenge(filled, settings, 0, 8 * DAY)

    assert next_step(report.judgement, settings.gate) is NextStep.KEEP
    assert report.judgement.reasons[0].startswith("0.0 days of readings are there")


def test_a_champion_that_cannot_be_opened_refuses_the_comparison_not_the_training(filled, settings):
    train(filled, settings)
    (Path(settings.models.models_url) / "isolation_forest/v0001/scoring.npz").write_bytes(b"boom")

    report = challenge(filled, settings, 0, 8 * DAY)

    assert report.version == 2
    assert "the champion cannot be opened to compare with" in report.judgement.reasons[0]


def test_the_files_of_a_judged_version_hold_its_card_and_pictures(filled, settings):
    train(filled, settings)
    challenge(filled, settings, 0, 8 * DAY)

    ((files,),) = rows(
        filled,
        "SELECT array_agg(name ORDER BY name) FROM anomaly.model_versions,"
        " jsonb_object_keys(sha256) AS name WHERE version = 2",
    )
    assert files == ["alerts.png", "drift.png", "manifest.json", "model.joblib", "model_card.md",
                     "scores.png", "scoring.npz"]  # fmt: skip


# Promoting -------------------------------------------------------------------


def test_a_promotion_leaves_the_verdicts_that_are_out(two, settings):
    before = verdicts(two)

    promoted = Promoter(two, settings).promote(1, by="me", reason="a hunch")
    score(two, settings, 0, 8 * DAY)

    assert (promoted.replaced, promoted.effective_from) == (2, at(6 * DAY))
    assert {key: verdicts(two)[key] for key in before} == before
    assert judged_by(two)[-2:] == [(6, 1, 2 * DAY), (7, 1, 2 * DAY)]


def test_promoting_twice_changes_nothing_the_second_time(two, settings):
    first = Promoter(two, settings).promote(1, by="me", reason="a hunch")
    entries = rows(two, "SELECT count(*) FROM anomaly.model_in_force")

    second = Promoter(two, settings).promote(1, by="me", reason="a hunch")

    assert rows(two, "SELECT count(*) FROM anomaly.model_in_force") == entries
    assert (second.replaced, second.effective_from) == (1, first.effective_from)


def test_a_past_range_is_judged_anew_and_the_entry_it_replaces_stays_on_record(two, settings):
    promoted = Promoter(two, settings).promote_range(
        2, at(DAY), at(2 * DAY), by="me", reason="try", requested_by=TESTS
    )

    assert promoted.scores.updated == 2 * DAY
    assert judged_by(two) == [(day, 2 if day in (1, 4, 5) else 1, 2 * DAY) for day in range(6)]
    assert map_now(two) == [
        (1, "kept", None, at(DAY)),
        (2, "range", at(DAY), at(2 * DAY)),
        (1, "kept", at(2 * DAY), at(4 * DAY)),
        (2, "promotion", at(4 * DAY), None),
    ]
    assert rows(
        two,
        "SELECT version FROM anomaly.model_in_force WHERE superseded_at IS NOT NULL"
        "   AND effective_to = :t",
        t=at(4 * DAY),
    ) == [(1,)]


def test_a_version_judged_against_another_than_is_in_force_is_not_put_in_force(two, settings):
    train(two, settings)

    with pytest.raises(PromotionError, match="was judged against version 2, and version 3 is in"):
        Promoter(two, settings).promote(1, by="me", reason="late", judged_against=2)


def test_a_tampered_version_is_not_put_in_force(two, settings):
    (Path(settings.models.models_url) / "isolation_forest/v0001/model.joblib").write_bytes(b"boom")
    before = map_now(two)

    with pytest.raises(ArtefactError, match=r"model\.joblib was changed"):
        Promoter(two, settings).promote(1, by="me", reason="x")
    with pytest.raises(ArtefactError, match=r"model\.joblib was changed"):
        roll_back(Promoter(two, settings), by="me", reason="x", requested_by=TESTS)

    assert map_now(two) == before


def test_an_unknown_version_is_named(two, settings):
    with pytest.raises(PromotionError, match="there is no model version 9"):
        Promoter(two, settings).promote(9, by="me", reason="x")


def test_a_promotion_killed_before_it_scores_is_finished_by_repeating_it(
    two, settings, monkeypatch
):
    def killed(*arguments, **options):
        raise KeyboardInterrupt

    again = {"by": "me", "reason": "try", "requested_by": TESTS}
    with monkeypatch.context() as patch:
        patch.setattr("anomaly.scoring.scorer.Scorer.score_range", killed)
        with pytest.raises(KeyboardInterrupt):
            Promoter(two, settings).promote_range(2, START, at(DAY), **again)
    assert judged_by(two)[0] == (0, 1, 2 * DAY)

    Promoter(two, settings).promote_range(2, START, at(DAY), **again)

    assert judged_by(two)[0] == (0, 2, 2 * DAY)


# Rolling back ----------------------------------------------------------------


def roll_back(promoter, **decision):
    promoted = promoter.roll_back(**decision)
    promoter.finish_rollback(promoted)
    return promoted


def test_rolling_back_scores_again_what_the_bad_version_judged(two, settings):
    promoted = roll_back(Promoter(two, settings), by="me", reason="noisy", requested_by=TESTS)

    assert (promoted.version, promoted.replaced) == (1, 2)
    assert promoted.effective_from == at(4 * DAY)
    assert promoted.scores.updated == 4 * DAY
    assert {version for _, version, _ in judged_by(two)} == {1}
    assert ("noisy",) in rows(two, "SELECT reason FROM anomaly.model_in_force")


def test_rolling_back_from_now_leaves_the_verdicts(two, settings):
    before = verdicts(two)

    promoted = roll_back(
        Promoter(two, settings), by="me", reason="noisy", requested_by=TESTS, from_now=True
    )

    assert (promoted.effective_from, promoted.scores) == (at(6 * DAY), None)
    assert verdicts(two) == before


def test_rolling_back_again_goes_one_version_further(two, settings):
    train(two, settings)
    promoter = Promoter(two, settings)

    versions = [
        roll_back(promoter, by="me", reason="x", requested_by=TESTS, from_now=True).version
        for _ in range(2)
    ]

    assert versions == [2, 1]
    with pytest.raises(PromotionError, match="no earlier version to go back to"):
        roll_back(promoter, by="me", reason="x", requested_by=TESTS)


def test_a_roll_back_that_a_promotion_overtakes_changes_nothing(two, settings, monkeypatch):
    promoter = Promoter(two, settings)
    require = Promoter.require_usable

    def overtaken(self, version):
        monkeypatch.setattr(Promoter, "require_usable", require)
        train(two, settings)

    monkeypatch.setattr(Promoter, "require_usable", overtaken)

    with pytest.raises(PromotionError, match="version 3 was put in force instead of version 2"):
        roll_back(promoter, by="me", reason="noisy", requested_by=TESTS)
    assert map_now(two)[-1][:2] == (3, "promotion")


# Looking back ----------------------------------------------------------------


def test_the_version_on_a_date_is_told_as_it_stands_and_as_it_stood(two, settings):
    moment = at(5 * DAY)
    execute(two, "UPDATE anomaly.model_in_force SET recorded_at = :t", t=moment)
    execute(
        two,
        "UPDATE anomaly.model_in_force SET superseded_at = :t WHERE superseded_at IS NOT NULL",
        t=moment,
    )
    promoter = Promoter(two, settings)
    roll_back(promoter, by="me", reason="noisy", requested_by=TESTS)

    found = promoter.version_on(moment)

    assert (found["version"], found["live_then"]) == (1, 2)
    assert [entry["decision"] for entry in found["entries"]][-1] == "rollback"
    assert promoter.version_on(at(DAY))["version"] == 1
    assert promoter.version_on(datetime(2020, 1, 1, tzinfo=UTC))["live_then"] is None


def test_a_version_shows_where_it_was_in_force_and_who_said_so(two, settings):
    found = Promoter(two, settings).show(2)

    assert found["status"] == "registered"
    assert [(e["effective_from"], e["recorded_by"]) for e in found["in_force"]] == [
        (at(4 * DAY), "test")
    ]


def test_verifying_names_what_is_wrong_with_each_version(two, settings):
    (Path(settings.models.models_url) / "isolation_forest/v0002/manifest.json").unlink()

    found = Promoter(two, settings).verify()

    assert found[1] == ""
    assert "(manifest.json)" in found[2]


# Reproducing and retiring ----------------------------------------------------


def test_a_version_is_reproduced_from_its_record_whatever_the_settings_are_now(two, settings):
    others = settings.changed(random_seed=1, forest_trees=5)

    found = reproduce(two, others, 2)

    assert found.same
    assert found.libraries == {}


def test_what_people_said_since_does_not_change_what_is_reproduced(two, settings):
    everything = Window(datetime(2020, 1, 1, tzinfo=UTC), datetime(2030, 1, 1, tzinfo=UTC))
    label(
        two, settings.meter, settings.incidents, "1", everything, LabelName.MAINTENANCE, by="tests"
    )

    assert reproduce(two, settings, 2).same


def test_a_version_whose_readings_were_changed_is_not_reproduced(two, settings):
    change(two, 300, "machine_1 + 0.4")

    found = reproduce(two, settings, 2)

    assert not found.same
    assert "reference/counts" in found.differing


def test_versions_that_nothing_refers_to_are_retired_beyond_the_newest(two, settings):
    keep_one = settings.changed(keep_versions=1)
    window = Window(START, at(8 * DAY))
    third, fourth = (register_trained(two, keep_one, window).version for _ in range(2))

    status = dict(rows(two, "SELECT version, status FROM anomaly.model_versions"))

    # 1 and 2 judge readings; the third never did, and is not the newest.
    assert status == {1: "registered", 2: "registered", third: "retired", fourth: "registered"}
    family = Path(settings.models.models_url) / "isolation_forest"
    assert sorted(path.name for path in family.iterdir()) == ["v0001", "v0002", "v0004"]
    with pytest.raises(PromotionError, match="version 3 is retired"):
        Promoter(two, settings).promote(third, by="me", reason="x")


def test_a_version_that_replaced_verdicts_name_is_never_retired(two, settings):
    keep_one = settings.changed(keep_versions=1)
    roll_back(Promoter(two, settings), by="me", reason="noisy", requested_by=TESTS)

    register_trained(two, keep_one, Window(START, at(8 * DAY)))

    # Nothing current is of version 2; the history is.
    status = dict(rows(two, "SELECT version, status FROM anomaly.model_versions"))
    assert set(status.values()) == {"registered"}


def test_the_versions_map_never_overlaps_and_has_no_hole_after_any_decisions(two, settings):
    promoter, record = Promoter(two, settings), {"by": "me", "reason": "", "requested_by": TESTS}
    promoter.promote_range(2, at(DAY), at(3 * DAY), **record)
    promoter.promote_range(1, at(2 * DAY), at(5 * DAY), **record)
    roll_back(promoter, **record)
    promoter.promote(2, by="me", reason="")

    entries = map_now(two)

    assert entries[0][2] is None
    assert entries[-1][3] is None
    assert all(before[3] == after[2] for before, after in pairwise(entries))
    assert score(two, settings, 0, 6 * DAY).updated == 0
