"""A machine is removed with all that is known of it, and comes back if it is still metered."""

import threading

import pytest

from anomaly.errors import MachineError
from anomaly.incidents.labels import LabelName
from anomaly.incidents.operator_feedback import label
from anomaly.operations.machine_removal import remove_machine
from anomaly.windows import Window
from deployment import at, counters, execute, insert, rows, score, train, verdicts
from integration_settings import SMALL

DAY = 96


@pytest.fixture
def scored(database, settings):
    settings = settings.changed(**SMALL)
    insert(database, counters(9 * DAY))
    train(database, settings)
    score(database, settings, 8 * DAY, 9 * DAY)
    window = Window(at(8 * DAY), at(9 * DAY))
    label(
        database,
        settings.meter,
        settings.incidents,
        "2",
        window,
        LabelName.MAINTENANCE,
        by="Shift B",
    )
    return settings


def counts(database, machine):
    tables = ("machines", "anomaly_results", "anomaly_results_history", "incidents", "labels")
    return [
        rows(database, f"SELECT count(*) FROM anomaly.{table} WHERE machine_id = {machine}")[0][0]
        for table in tables
    ]


def test_a_machine_that_only_a_wrong_setting_made_is_removed_at_once(database, scored):
    execute(
        database,
        "INSERT INTO anomaly.machines (machine_id, source_key, name) VALUES (99, '12.5', '12.5')",
    )

    removed = remove_machine(database, "99")

    assert (removed.machine_id, removed.verdicts) == (99, 0)
    assert counts(database, 99) == [0, 0, 0, 0, 0]


def test_a_machine_with_verdicts_is_kept_unless_they_may_go_too(database, scored):
    before = counts(database, 2)

    with pytest.raises(MachineError, match=r"has 96 verdicts.*--with-verdicts"):
        remove_machine(database, "2")

    assert counts(database, 2) == before
    assert remove_machine(database, "2", with_verdicts=True).verdicts == DAY
    assert counts(database, 2) == [0, 0, 0, 0, 0]


def test_removing_changes_no_other_machine_and_a_removed_one_comes_back_as_it_was(database, scored):
    before = verdicts(database)

    remove_machine(database, "2", with_verdicts=True)
    others = verdicts(database)
    score(database, scored, 8 * DAY, 9 * DAY)

    assert others == {key: verdict for key, verdict in before.items() if key[0] != 2}
    assert verdicts(database) == before


def test_a_run_that_has_read_a_machine_before_it_was_removed_starts_again(
    database, scored, monkeypatch
):
    from anomaly.scoring.judging import WindowJudge

    removed = threading.Event()
    judge = WindowJudge.verdicts

    def judge_and_lose_the_machine(self, *arguments):
        found = judge(self, *arguments)
        if not removed.is_set():
            removed.set()
            remove_machine(database, "2", with_verdicts=True)
        return found

    before = verdicts(database)
    monkeypatch.setattr(WindowJudge, "verdicts", judge_and_lose_the_machine)

    score(database, scored, 8 * DAY, 9 * DAY)

    assert verdicts(database) == before
