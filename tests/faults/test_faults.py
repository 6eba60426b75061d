"""Faults, injected into processes that do the work of tasks; after each, the results are right.

A fault is a function of a plant that has half a day scored and half a day waiting. It injects the
fault and asserts that it has hit the phase it means to. Then the next run must mend everything,
without a hand, and the independent oracle must agree.
"""

import signal
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import psutil
import psycopg2
import pytest

from faults.plant import (
    DAY,
    PHASES,
    SCORED,
    WAITS_FOR_LOCK,
    WHOLE,
    Plant,
    disk,
    ended,
    enlarge,
    failed,
    fill,
    put_to_sleep,
    until,
)
from faults.postgres_proxy import Point
from faults.table import FULL, recorded, wanted
from oracle_deployment import BASE, LOCAL_NIGHT, QUARTER

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SHORT = {"lock_timeout_seconds": 1, "statement_timeout_seconds": 20}
"""Limits under which a task that waits for a lock gives up soon."""


@dataclass(frozen=True)
class Fault:
    """What is done to a plant.

    Attributes
    ----------
    number : int
        Its number in docs/reference/faults.md.
    inject : function
        Returns the plant that it was done to, where that is another one.
    mended_by : str
        The kind of run that must mend it.
    """

    number: int
    says: str
    inject: Callable[[Plant, Random], Plant | None]
    mended_by: str = "tick"


FAULTS: list[Fault] = []


def fault(number: int, says: str, *, mended_by: str = "tick"):
    def register(inject):
        FAULTS.append(Fault(number, says, inject, mended_by))
        return inject

    return register


# Killed -----------------------------------------------------------------------------


def kill_at(plant: Plant, point: Point) -> None:
    """Kill a tick that has come to a point."""
    with plant.stopped_at(point) as (task, _):
        task.send_signal(signal.SIGKILL)
        task.wait()


def is_published(plant: Plant) -> bool:
    """Whether everything has been scored up to now."""
    ((newest,),) = plant.deployment.execute("SELECT max(window_end) FROM anomaly.scoring_runs")
    return newest is not None and newest >= plant.now


@fault(1, "SIGKILL of the task before its COPY")
def killed_before_copy(plant, random):
    kill_at(plant, Point.BEFORE_COPY)
    assert not is_published(plant)


@fault(2, "SIGKILL in the middle of COPY")
def killed_in_copy(plant, random):
    kill_at(plant, Point.IN_COPY)
    assert not is_published(plant)


@fault(3, "SIGKILL after COPY, before the commit")
def killed_before_commit(plant, random):
    kill_at(plant, Point.BEFORE_COMMIT)
    assert not is_published(plant)


@fault(4, "SIGKILL after the commit, before anybody hears of it")
def killed_after_commit(plant, random):
    kill_at(plant, Point.AFTER_COMMIT)
    assert is_published(plant)


# Stopped, and overtaken -----------------------------------------------------------------


@fault(5, "SIGSTOP, a retry succeeds, SIGCONT")
def overtaken_while_it_slept(plant, random):
    with plant.stopped_at(Point.READ) as (task, proxy):
        put_to_sleep(task)
        record = plant.records[SCORED + random.randrange(DAY_LEFT)]
        plant.correct(record, 1, record.cells["machine_1"] + 0.1)
        plant.run("tick")  # the retry
        ((newest,),) = plant.deployment.execute("SELECT max(run_id) FROM anomaly.scoring_runs")
        task.send_signal(signal.SIGCONT)
        proxy.release()
        ended(task)
        overwritten = plant.deployment.execute(
            "SELECT count(*) FROM anomaly.anomaly_results_history WHERE run_id = %s", newest
        )
        assert overwritten == [(0,)], "the attempt that slept wrote over the newer one"


@fault(5, "SIGSTOP with the lock in hand; others give up in time, SIGCONT")
def asleep_with_the_lock(plant, random):
    with plant.stopped_at(Point.BEFORE_COMMIT) as (task, proxy):
        put_to_sleep(task)
        failed(plant.start("tick", **SHORT), "another transaction holds a lock that is needed")
        proxy.release()
        task.send_signal(signal.SIGCONT)
        ended(task)


# The database and the network -------------------------------------------------------------


@fault(9, "the database stops at once while it publishes, and starts again")
def crashed_server(plant, random):
    with plant.stopped_at(Point.BEFORE_COMMIT) as (task, proxy):
        plant.crash_server()
        proxy.release()
        failed(task, "the connection to the database broke off|cannot connect to")
    failed(plant.start("tick"), "cannot connect to")
    plant.start_server()


@fault(10, "pg_terminate_backend while it publishes")
def terminated_backend(plant, random):
    point = random.choice([Point.READ, Point.BEFORE_COPY, Point.BEFORE_COMMIT])
    with plant.stopped_at(point) as (task, proxy):
        done = plant.deployment.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            "   AND backend_type = 'client backend'"
        )
        assert {(True,)} == {*done}
        proxy.release()
        failed(task, "the server is stopped or starts|the connection to the database broke off")


@fault(11, "the network stalls, then resets the connection")
def reset_connection(plant, random):
    point = random.choice([Point.READ, Point.BEFORE_COPY, Point.IN_COPY, Point.BEFORE_COMMIT])
    with plant.stopped_at(point) as (task, proxy):
        time.sleep(random.random() / 2)
        assert task.poll() is None, "it gave up while the network stalled"
        proxy.reset()
        until(lambda: not plant.backends(PHASES[point]))
        failed(task, "the connection to the database broke off")


# Several at once ----------------------------------------------------------------------------


@fault(12, "a scheduled run, a backfill and a reconciliation of overlapping windows")
def three_at_once(plant, random):
    three_publish_at_once(plant, random)


def three_publish_at_once(plant, random, port=None, meanwhile=lambda: None):
    """Start all three, let each come to the publishing lock, and only then give it free."""
    first = random.randrange(2, SCORED)
    reconciled_from = random.randrange(first - 1)
    # What nobody says that it was corrected is for the reconciliation alone.
    record = plant.records[random.randrange(reconciled_from, first - 1)]
    record.cells["machine_1"] += 0.3
    plant.deployment.rewrite(record)
    ((before,),) = plant.deployment.execute("SELECT max(run_id) FROM anomaly.scoring_runs")
    with plant.publishing_held():
        tasks = [
            plant.start("tick", port=port),
            plant.start("backfill", port=port, first=first),
            plant.start("reconcile", port=port, first=reconciled_from),
        ]
        until(lambda: plant.backends(WAITS_FOR_LOCK) == len(tasks))
        meanwhile()
    for task in tasks:
        ended(task)
    ran = plant.deployment.execute(
        "SELECT DISTINCT command FROM anomaly.scoring_runs WHERE run_id > %s", before
    )
    assert {*ran} == {("tick",), ("backfill",), ("reconcile",)}


# What the source does ---------------------------------------------------------------------------


@fault(13, "a writer's transaction is held open across ticks")
def open_writer(plant, random):
    held = [record for record in plant.records[SCORED:] if random.random() < 0.3]
    held = held or [plant.records[-1]]
    plant.deployment.remove(held)
    for record in held:
        record.ingested_at = plant.now  # when its transaction began
    with plant.connection() as writer:
        plant.write_uncommitted(writer, held)
        plant.run("tick")
        plant.run("tick", end=plant.now)
        assert plant.backends("state = 'idle in transaction'") == 1
        writer.commit()


@fault(14, "readings come days late, in random order")
def late_readings(plant, random):
    late = random.sample(plant.records[SCORED:], (WHOLE - SCORED) // 2)
    plant.deployment.remove(late)
    plant.run("tick")
    plant.now += 3 * DAY * QUARTER
    for part in (late[: len(late) // 2], late[len(late) // 2 :]):
        for record in part:
            record.ingested_at = plant.now
        plant.deployment.write(part)
        plant.run("tick")


@fault(15, "source rows are corrected and deleted in mid-run", mended_by="reconcile")
def corrected_in_mid_run(plant, random):
    with plant.stopped_at(random.choice([Point.READ, Point.BEFORE_COPY])) as (task, proxy):
        for record in random.sample(plant.records, 5):
            plant.correct(record, random.choice((1, 2)), random.choice((None, 77.0, 1e6)))
        plant.delete(random.choice(plant.records))
        proxy.release()
        ended(task)


@fault(16, "NULL, NaN, infinities, negative and absurd numbers, years beyond 9999")
def odd_values(plant, random):
    odd = [None, float("nan"), float("inf"), float("-inf"), -5.0, 0.0, 1e300, -1e300, 1e-320]
    for record in random.sample(plant.records[SCORED:], 12):
        plant.correct(record, random.choice((1, 2)), random.choice(odd))
    plant.deployment.execute(
        "INSERT INTO anomaly.meter_readings (utc_timestamp, machine_1, ingested_at)"
        " VALUES ('20000-01-01Z', 5, now()), ('-infinity', 5, 'infinity'), ('infinity', 5, now())"
    )
    plant.run("tick")
    plant.deployment.execute(
        "DELETE FROM anomaly.meter_readings"
        " WHERE utc_timestamp < '1900-01-01' OR utc_timestamp > '2200-01-01'"
    )


@fault(16, "a column of numbers becomes text")
def text_values(plant, random):
    column = (
        "ALTER TABLE anomaly.meter_readings ALTER COLUMN machine_1 TYPE {0} USING machine_1::{0}"
    )
    plant.deployment.execute(column.format("text"))
    try:
        failed(plant.start("tick"), "machine_1 is text, not a number: name another column in")
    finally:
        plant.deployment.execute(column.format("double precision"))


@fault(17, "the clock jumps: ticks of tomorrow, of yesterday and of now")
def jumping_clock(plant, random):
    for jump in random.sample([-DAY, -7, 3, DAY, 5 * DAY], 3):
        plant.run("tick", first=-2 * DAY, end=plant.now + jump * QUARTER)


@fault(17, "the night in which the clock is set back, without time zones; SIGKILL in it")
def autumn_night(plant, random):
    return a_night(plant, random, LOCAL_NIGHT, BASE + 36 * 4 * QUARTER)


@fault(17, "the night in which the clock is set forward, without time zones; SIGKILL in it")
def spring_night(plant, random):
    layout = replace(
        LOCAL_NIGHT,
        zone="America/New_York",  # on 10 March 2024 at 7:00 UTC
        settings=LOCAL_NIGHT.settings | {"source_timezone": "America/New_York"},
    )
    return a_night(plant, random, layout, datetime(2024, 3, 9, 19, tzinfo=UTC))


def a_night(plant, random, layout, origin):
    night = plant.for_this_fault(plant.of(layout, origin))
    night.begin(random)
    kill_at(night, random.choice([Point.IN_COPY, Point.BEFORE_COMMIT]))
    return night


# Models -----------------------------------------------------------------------------------------


@fault(18, "the model's file is cut, swapped or changed")
def broken_model(plant, random):
    file = plant.file_of_version(1, "scoring.npz")
    whole = file.read_bytes()
    broken = random.choice(
        [
            whole[: len(whole) // 2],
            plant.file_of_version(2, "scoring.npz").read_bytes(),
            bytes([whole[0] ^ 1]) + whole[1:],
            b"",
        ]
    )
    file.write_bytes(broken)
    try:
        failed(plant.start("tick"), "scoring.npz was changed: sha256 .* it was not opened")
    finally:
        file.write_bytes(whole)


@fault(18, "two deployments train at once in one models folder")
def shared_models(plant, random):
    with plant.twin_database() as other:
        trainings = [plant.start("train"), plant.start("train", database=other)]
        for training in trainings:
            ended(training)
        for database in ("", other):
            found = plant.verified(database)
            assert len(found) == 4, "three were there, and each has trained one"
            assert {*found.values()} == {""}


@fault(19, "a promotion while it publishes")
def promoted_in_mid_run(plant, random):
    point = random.choice([Point.READ, Point.BEFORE_COMMIT])
    with plant.stopped_at(point) as (task, proxy):
        promoting = threading.Thread(target=plant.promote, args=(2,))
        promoting.start()
        if point is Point.READ:
            promoting.join()
        else:
            until(lambda: plant.backends(WAITS_FOR_LOCK))
        proxy.release()
        ended(task)
        promoting.join(60)
        assert not promoting.is_alive()


@fault(19, "SIGKILL of a training")
def killed_training(plant, random):
    with plant.connection() as other, other.cursor() as cursor:
        cursor.execute("LOCK TABLE anomaly.model_versions IN SHARE MODE")  # none is registered
        task = plant.start("train")
        until(lambda: plant.backends("wait_event_type = 'Lock'") or task.poll() is not None)
        assert plant.drafts(), task.communicate()
        task.send_signal(signal.SIGKILL)
        task.communicate()
    until(lambda: not plant.backends("state <> 'idle'"))
    assert plant.drafts(), "the killed training has left a draft, which the next one sweeps"
    plant.run("train")
    assert not plant.drafts()


# Locks, grants, columns, partitions -------------------------------------------------------------


@fault(21, "an idle transaction holds the publishing lock")
def idle_transaction(plant, random):
    with plant.publishing_held():
        failed(plant.start("tick", **SHORT), "another transaction holds a lock that is needed")


@fault(22, "a column is renamed")
def renamed_column(plant, random):
    rename = "ALTER TABLE anomaly.meter_readings RENAME COLUMN {} TO {}"
    plant.deployment.execute(rename.format("utc_timestamp", "stamp"))
    try:
        failed(plant.start("tick"), "has no column 'utc_timestamp', it has .*: set ANOMALY_SOURCE_")
    finally:
        plant.deployment.execute(rename.format("stamp", "utc_timestamp"))


@fault(22, "a grant is revoked")
def revoked_grant(plant, random):
    for grant in (
        "SELECT ON anomaly.meter_readings {} anomaly_source",
        "INSERT ON anomaly.anomaly_results {} anomaly_scorer",
    ):
        plant.deployment.execute("REVOKE " + grant.format("FROM"))
        try:
            failed(plant.start("tick"), "permission denied|that this login may see: .* or grant it")
        finally:
            plant.deployment.execute("GRANT " + grant.format("TO"))


@fault(22, "a partition is detached; another is missing")
def detached_partition(plant, random):
    part = "anomaly.anomaly_results_2024_02"
    plant.deployment.execute(f"ALTER TABLE anomaly.anomaly_results DETACH PARTITION {part}")
    try:
        said = failed(plant.start("tick"), "the results of 2024-02 are detached")
    finally:
        plant.deployment.execute(said[said.index("ALTER TABLE") :])
    plant.deployment.execute("DROP TABLE IF EXISTS anomaly.anomaly_results_2024_03")


@fault(22, "the source is emptied: nothing is retracted")
def emptied_source(plant, random):
    before = plant.deployment.results()
    plant.deployment.remove(plant.records)
    plant.run("tick")
    plant.run("reconcile")
    assert plant.deployment.results() == before
    plant.deployment.write(plant.records)


@fault(22, "the source is purged: nothing is overwritten")
def purged_source(plant, random):
    plant.run("tick")
    before = plant.deployment.results()
    purged = plant.records[: random.randrange(10, SCORED)]
    plant.deployment.remove(purged)
    plant.run("tick")
    plant.run("reconcile")
    assert plant.deployment.results() == before
    plant.deployment.write(purged)


# Between product and database, and another cluster -----------------------------------------------


@fault(23, "PgBouncer in transaction mode, and three runs at once")
def through_pgbouncer(plant, random):
    with plant.through_pgbouncer() as port:
        three_publish_at_once(
            plant, random, port, meanwhile=lambda: all_come_from_pgbouncer(plant, port)
        )
        plant.run("train", port=port)


def all_come_from_pgbouncer(plant, port):
    """Who waits for the lock is a connection that PgBouncer says it has made."""
    console = psycopg2.connect(
        plant.deployment.database.engine.url.set(
            drivername="postgresql", port=port, database="pgbouncer"
        ).render_as_string(hide_password=False)
    )
    console.autocommit = True
    with console.cursor() as cursor:
        cursor.execute("SHOW SERVERS")
        place = [column.name for column in cursor.description].index("local_port")
        made = {row[place] for row in cursor.fetchall()}
    console.close()
    waiting = plant.deployment.execute(
        f"SELECT client_port FROM pg_stat_activity WHERE {WAITS_FOR_LOCK}"
    )
    assert {client_port for (client_port,) in waiting} <= made


@fault(24, "a dump, restored into a new cluster, goes on")
def restored_dump(plant, random):
    return plant.for_this_fault(plant.restored())


# No room ------------------------------------------------------------------------------------------


@fault(20, "memory runs out while it reads a year")
def out_of_memory(plant, random):
    first, days = -400 * DAY, 365
    year = (plant.at(first), plant.at(first + days * DAY))
    plant.deployment.execute(
        "INSERT INTO anomaly.meter_readings (utc_timestamp, machine_1, machine_2)"
        " SELECT t, extract(epoch FROM t - %s) / 900, 7"
        "   FROM generate_series(%s, %s, interval '15 minutes') t",
        year[0], *year,
    )  # fmt: skip
    before = plant.deployment.results()
    with plant.stopped_at(
        Point.READS, kind="backfill", first=first, end=year[1], chunk_days=days
    ) as (task, proxy):
        process = psutil.Process(task.pid)
        limit = process.memory_info().data + random.choice([0, 1 << 20, 3 << 20])
        process.rlimit(psutil.RLIMIT_DATA, (limit, limit))
        proxy.release()
        failed(task, "^error: memory ran out .*ANOMALY_CHUNK_READINGS")
    assert plant.deployment.results() == before
    plant.deployment.execute(
        "DELETE FROM anomaly.meter_readings WHERE utc_timestamp BETWEEN %s AND %s", *year
    )


@fault(20, "the disk of the models is full")
def full_disk_of_models(plant, random):
    with tempfile.TemporaryDirectory() as name, disk(Path(name), "8k"):
        failed(plant.start("train", models_url=name), "No space left on device")
        assert list(Path(name).glob("**/v*")) == [], "half a version was left"
        enlarge(Path(name), "64m")
        plant.run("train", models_url=name)
        assert len(list(Path(name).glob("**/v*/scoring.npz"))) == 1
        assert not plant.drafts()


@fault(20, "the disk of the database is full")
def full_disk_of_database(plant, random):
    other = plant.for_this_fault(plant.restored(size="400m"))
    filling = fill(other.postgres.folder.parent)
    failed(other.start("tick"), "No space left on device")
    assert not is_published(other)
    filling.unlink()
    return other


DAY_LEFT = WHOLE - SCORED


def times(each: Fault) -> int:
    return wanted(each.number) if FULL else 3


@pytest.mark.parametrize(
    ("each", "seed"),
    [(each, seed) for each in FAULTS for seed in range(times(each))],
    ids=lambda value: value.inject.__name__ if isinstance(value, Fault) else str(value),
)
def test_nothing_is_lost_doubled_or_wrong_after(plant, each, seed, record_property):
    random = Random(f"{each.inject.__name__} {seed}")
    plant.begin(random)
    with recorded(record_property, each.number, each.says) as injection, plant.until_mended():
        hit = each.inject(plant, random) or plant

        over = time.monotonic()
        hit.run(each.mended_by)
        injection.seconds = time.monotonic() - over
        assert is_published(hit), "the run that mends has scored nothing"
        damage = hit.damage()
        injection.found(damage.lost, damage.doubled, damage.wrong)
        assert damage.none, damage
