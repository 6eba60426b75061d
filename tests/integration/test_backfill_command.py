"""``anomaly backfill`` in this process: options, preview, Ctrl-C and going on."""

import json

import pytest
from typer.testing import CliRunner

from anomaly.cli.app import app
from anomaly.operations import backfilling
from anomaly.scoring.publishing import Publisher
from deployment import at, counters, execute, insert, rows, train

DAY = 96
RANGE = ("--start", "2026-03-02", "--end", "2026-03-11")


@pytest.fixture
def run(database, settings, monkeypatch):
    """Run the command on nine days of two machines, in pieces of two days."""
    insert(database, counters(9 * DAY))
    train(database, settings)
    monkeypatch.setattr(backfilling, "PIECE_READINGS", 10 * DAY)
    environment = {
        "ANOMALY_DATABASE_URL": database.engine.url.render_as_string(hide_password=False),
        "ANOMALY_MODELS_URL": settings.models.models_url,
        "ANOMALY_CHUNK_DAYS": "1",
        "ANOMALY_DETECTOR": "prototype",
    }

    def run(*arguments):
        return CliRunner().invoke(app, ["backfill", *arguments], env=environment)

    return run


def test_a_preview_and_a_backfill_in_words_and_in_json(run, database):
    preview = run(*RANGE, "--dry-run")
    counted = json.loads(run(*RANGE, "--dry-run", "--json").stdout)
    done = json.loads(run(*RANGE, "--json").stdout)
    again = run(*RANGE)

    assert "Preview: nothing is written yet" in preview.stdout
    assert "| verdicts would be new | 1,728 |" in preview.stdout
    assert (counted["dry_run"], counted["backfill_id"], counted["inserted"]) == (True, None, 1728)
    assert (done["dry_run"], done["backfill_id"], done["inserted"]) == (False, 1, 1728)
    names = ("read", "scored", "updated", "unchanged", "retracted", "anomalies")
    assert {name: counted[name] for name in names} == {name: done[name] for name in names}
    assert "### Backfill 2" in again.stdout
    assert "| verdicts unchanged | 1,728 |" in again.stdout
    assert "| versions | version 1, as in force |" in again.stdout


def test_ctrl_c_leaves_what_is_finished_and_says_how_to_go_on(run, database, monkeypatch):
    publish, left = Publisher.publish, [3]

    def publish_thrice(self, attempt, shape, job):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return publish(self, attempt, shape, job)

    monkeypatch.setattr(Publisher, "publish", publish_thrice)
    stopped = run(*RANGE, "--mode", "everything")
    monkeypatch.setattr(Publisher, "publish", publish)
    gone_on = json.loads(run("--resume", "1", "--json").stdout)

    assert stopped.exit_code == 130
    assert stopped.stderr == (
        "stopped: what is finished stays. Go on with `anomaly backfill --resume 1`\n"
    )
    assert (gone_on["inserted"], gone_on["unchanged"]) == (1728, 0)
    assert rows(
        database, "SELECT count(*), count(DISTINCT window_start) FROM anomaly.scoring_runs"
    ) == [(5, 5)]


def test_some_machines_by_name_or_number(run, database):
    run(*RANGE, "--machines", "machine_2, 1", "--mode", "missing")
    execute(database, "DELETE FROM anomaly.anomaly_results WHERE utc_timestamp < :t", t=at(DAY))
    found = json.loads(run(*RANGE, "--machines", "1", "--machines", "2", "--json").stdout)

    assert found["inserted"] == 2 * DAY
    asked = rows(database, "SELECT machines, mode FROM anomaly.backfills ORDER BY backfill_id")
    assert asked == [([1, 2], "missing"), ([1, 2], "changed")]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "say --start and --end, or --resume and a backfill's number"),
        (("--resume", "7"), "there is no backfill 7"),
        (("--resume", "1", "--dry-run"), "leave the other options out"),
        ((*RANGE, "--machines", "lathe"), "no machine is called 'lathe'"),
        ((*RANGE, "--model-version", "3"), "there is no model version 3"),
        (("--start", "2026-03-02T00:00", "--end", "2026-03-11"), "has no time zone"),
        (("--start", "2026-03-11", "--end", "2026-03-02"), "the end must be later than the start"),
    ],
)
def test_what_cannot_be_done_is_one_line(arguments, said, run):
    failed = run(*arguments)

    assert said in str(failed.exception)
    assert "\n" not in str(failed.exception)


def test_a_backfill_killed_before_its_version_was_in_force_puts_it_there(
    run, database, settings, monkeypatch
):
    train(database, settings.changed(random_seed=7))  # version 2 is in force now

    def killed(*_):
        raise SystemExit(137)

    with monkeypatch.context() as patched:
        patched.setattr(backfilling.Backfiller, "_put_in_force", killed)
        assert run(*RANGE, "--model-version", "1").exit_code == 137

    assert run("--resume", "1").exit_code == 0
    found = rows(database, "SELECT DISTINCT model_version FROM anomaly.anomaly_results ORDER BY 1")
    assert found == [(1,)]
