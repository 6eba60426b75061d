"""A plant to inject faults into: readings, what must come of them, and processes that work."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from copy import copy
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any, BinaryIO

import psutil
import psycopg2
import pytest

from anomaly.database.connection import Database
from anomaly.database.migrations import migrate
from anomaly.demo.embedded_postgres import EmbeddedPostgres
from anomaly.demo.processes import free_port
from anomaly.lifecycle.promotion import Promoter
from faults.postgres_proxy import Point, PostgresProxy
from oracle import Entry
from oracle_deployment import BASE, QUARTER, SMALL, Deployment, Layout, Record, differences

DAY = 96
SCORED, WHOLE = DAY // 2, DAY
"""Quarter-hours that are scored before the fault, and with those that it meets."""
FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
TOLERANT = {"retract_limit": 0.1}
"""A day of two machines has so few readings that one of them is more than the usual share."""
WORK = Path(__file__).with_name("work.py")
HOLDS_THE_LOCK = "state = 'idle in transaction' AND backend_xid IS NOT NULL"
PHASES = {
    Point.READS: "state = 'idle in transaction' AND backend_xid IS NULL",
    Point.READ: "state = 'idle in transaction' AND backend_xid IS NULL",
    Point.BEFORE_COPY: f"{HOLDS_THE_LOCK} AND query NOT LIKE '%FROM STDIN%'",
    Point.IN_COPY: (
        "pid IN (SELECT pid FROM pg_stat_progress_copy WHERE command = 'COPY FROM'"
        " AND relid = ANY (ARRAY(SELECT oid FROM pg_class WHERE relname = 'anomaly_results')))"
    ),
    Point.BEFORE_COMMIT: HOLDS_THE_LOCK,
    Point.AFTER_COMMIT: "state = 'idle' AND query = 'COMMIT'",
}
"""How the server shows that a connection is at a point."""
WAITS_FOR_LOCK = "wait_event_type = 'Lock' AND query LIKE '%anomaly.locks%'"


@dataclass
class Damage:
    """What a fault did to the results, in rows: all 0 where it did none.

    Attributes
    ----------
    lost, doubled : int
        Readings without a verdict, and verdicts that are there again.
    wrong : int
        Verdicts, sums, incidents, and rows of history, ledger and meter table that are not what
        they must be.
    says : list of str
        The first of them.
    """

    lost: int
    doubled: int
    wrong: int
    says: list[str]

    @property
    def none(self) -> bool:
        return not (self.lost or self.doubled or self.wrong)


class Plant:
    """A deployment in miniature, whose results the independent oracle knows."""

    def __init__(
        self, postgres: EmbeddedPostgres, deployment: Deployment, origin: datetime = BASE
    ) -> None:
        self.postgres = postgres
        self.deployment = deployment
        self.records: list[Record] = []
        self.version_map: list[Entry] = []
        self.origin = self.now = origin
        self._others = ExitStack()

    def until_mended(self) -> ExitStack:
        """What to enter around a fault: plants that it makes are kept until it is mended."""
        self._others = ExitStack()
        return self._others

    def for_this_fault(self, other: AbstractContextManager["Plant"]) -> "Plant":
        """Enter another plant, until this fault is mended."""
        return self._others.enter_context(other)

    # Its life ------------------------------------------------------------

    def begin(self, random: Random) -> None:
        """Start anew: half a day is scored, and the readings of another half wait."""
        self.deployment.reset()
        self.records, self.version_map = [], [Entry(None, None, 1)]
        values = [100.0, 500.0]
        for quarter in range(WHOLE):
            steps = [random.choice((0.0, 0.25, 1.1, 2.0)), random.choice((0.0, 0.7, 14.9, 1.3))]
            values = [value + step for value, step in zip(values, steps, strict=True)]
            self.add(quarter, list(values))
        self.now = self.at(WHOLE)
        self.deployment.score(self.origin, self.at(SCORED))
        self.deployment.tick(self.at(SCORED))

    def at(self, quarter: int) -> datetime:
        """Start of a quarter-hour of the plant's time."""
        return self.origin + quarter * QUARTER

    def add(self, quarter: int, values: list[float | None]) -> None:
        """Write a row of the meter table, or one per machine, and when it was written."""
        moment = self.at(quarter)
        made = self.deployment.records(moment, values, moment + QUARTER)
        self.deployment.write(made)
        self.records += made

    def correct(self, record: Record, machine: int, value: float | None) -> None:
        """Give a reading another value, and say when."""
        record.cells[f"machine_{machine}"] = value
        record.ingested_at = self.now
        self.deployment.rewrite(record)

    def delete(self, record: Record) -> None:
        """Take a row away."""
        self.deployment.remove([record])
        self.records.remove(record)

    # Work ----------------------------------------------------------------

    def start(
        self,
        kind: str = "tick",
        *,
        port: int | None = None,
        database: str | None = None,
        first: int = 0,
        end: datetime | None = None,
        **settings: object,
    ) -> subprocess.Popen[str]:
        """Do the work of a task in a process of its own, through a proxy's port if given."""
        url = self.deployment.database.engine.url.set(
            query={"sslmode": "disable", "gssencmode": "disable"}
        )
        if port is not None:
            url = url.set(port=port)
        if database is not None:
            url = url.set(database=database)
        models = {"models_url": self.deployment.settings.models.models_url}
        mine = {**models, **SMALL, **TOLERANT, **self.deployment.layout.settings, **settings}
        environment = {
            **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
            **{f"ANOMALY_{name.upper()}": str(value) for name, value in mine.items()},
            "ANOMALY_DATABASE_URL": url.render_as_string(hide_password=False),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        }
        until = end or self.now
        return subprocess.Popen(
            [sys.executable, str(WORK), kind, self.at(first).isoformat(), until.isoformat()],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, kind: str = "tick", **options: object) -> None:
        """Do the work of a task; it must succeed."""
        ended(self.start(kind, **options))

    @contextmanager
    def stopped_at(
        self, point: Point, **options: object
    ) -> Iterator[tuple[subprocess.Popen[str], PostgresProxy]]:
        """A task that has come to a point, which the server confirms, and waits there."""
        proxy = PostgresProxy(self.deployment.database.engine.url.port or 5432)
        proxy.arm(point)
        task = self.start(port=proxy.port, **options)
        try:
            until(lambda: proxy.reached.is_set() or task.poll() is not None)
            assert proxy.reached.is_set(), task.communicate()
            until(lambda: self.backends(PHASES[point]))
            locked = point in (Point.BEFORE_COPY, Point.IN_COPY, Point.BEFORE_COMMIT)
            assert self.publishing_is_locked() is locked
            yield task, proxy
        finally:
            proxy.close()
            if task.poll() is None:
                task.kill()
            task.communicate()

    @contextmanager
    def connection(self) -> Iterator[Any]:
        """A connection of somebody else's, which is rolled back at the end."""
        other = psycopg2.connect(
            self.deployment.database.engine.url.set(drivername="postgresql").render_as_string(
                hide_password=False
            )
        )
        try:
            yield other
        finally:
            other.close()

    @contextmanager
    def publishing_held(self) -> Iterator[None]:
        """Hold the publishing lock, as an idle transaction does."""
        with self.connection() as other, other.cursor() as cursor:
            cursor.execute("SELECT FROM anomaly.locks WHERE name = 'publishing' FOR UPDATE")
            assert self.backends(HOLDS_THE_LOCK) == 1
            yield

    def publishing_is_locked(self) -> bool:
        """Whether somebody holds the publishing lock."""
        with self.connection() as other, other.cursor() as cursor:
            try:
                cursor.execute(
                    "SELECT FROM anomaly.locks WHERE name = 'publishing' FOR UPDATE NOWAIT"
                )
            except psycopg2.errors.LockNotAvailable:
                return True
            return False

    def write_uncommitted(self, writer: Any, records: list[Record]) -> None:
        """Write rows in somebody else's transaction."""
        layout = self.deployment.layout
        columns = ", ".join(layout.columns)
        with writer.cursor() as cursor:
            for record in records:
                cursor.execute(
                    f"INSERT INTO {layout.table} ({columns}) VALUES (%s, %s, %s, %s, %s, %s)",
                    layout.values(record),
                )

    @contextmanager
    def twin_database(self) -> Iterator[str]:
        """Name of a copy of the database: another deployment with the same models folder."""
        name = f"{self.deployment.database.engine.url.database}_copy"
        self.deployment.close()
        self.postgres.create_database(name, template="faults")
        self.deployment.connect()
        try:
            yield name
        finally:
            self.postgres.drop_database(name)

    @contextmanager
    def of(self, layout: Layout, origin: datetime) -> Iterator["Plant"]:
        """A plant with another meter table, at another time."""
        name = f"faults_{re.sub('[^a-z]', '', layout.zone.lower())}"
        self.postgres.create_database(name, template="migrated")
        with tempfile.TemporaryDirectory() as models:
            deployment = Deployment(self.postgres, name, layout, Path(models))
            try:
                yield Plant(self.postgres, deployment, origin)
            finally:
                deployment.close()
                self.postgres.drop_database(name)

    @contextmanager
    def restored(self, *, size: str = "") -> Iterator["Plant"]:
        """The plant, dumped and restored into a cluster of its own, on a disk of its own if given.

        Parameters
        ----------
        size : str
            Of the disk, such as ``300m``; empty: no disk of its own.
        """
        name = str(self.deployment.database.engine.url.database)
        with (
            tempfile.TemporaryDirectory() as folder,
            disk(Path(folder), size) if size else nullcontext(),
            opened(Path(folder)),
            EmbeddedPostgres(Path(folder) / "postgres", options=FAST) as server,
        ):
            server.create_database(name)
            settings = self.deployment.settings
            fresh = Database(server.url(name), settings.database)
            migrate(fresh, settings.meter_table)  # makes the roles
            fresh.dispose()
            server.drop_database(name)
            server.create_database(name)
            dump = _client(self.postgres, "pg_dump", name)
            _client(server, "psql", name, said=dump)
            deployment = copy(self.deployment)
            deployment.move(server.url(name))
            restored = Plant(server, deployment, self.origin)
            restored.records, restored.version_map = self.records, self.version_map
            restored.now = self.now
            assert restored.contents() == self.contents()
            try:
                yield restored
            finally:
                deployment.close()

    @contextmanager
    def through_pgbouncer(self) -> Iterator[int]:
        """The port of a PgBouncer in transaction mode in front of the server."""
        program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
        if program is None:
            pytest.skip("PgBouncer is not installed")
        url = self.deployment.database.engine.url
        port = free_port()
        with tempfile.TemporaryDirectory() as folder:
            Path(folder).chmod(0o755)
            users, config = Path(folder) / "users.txt", Path(folder) / "pgbouncer.ini"
            users.write_text(f'"{url.username}" "{url.password}"\n')
            config.write_text(
                f"[databases]\n* = host=127.0.0.1 port={url.port}\n[pgbouncer]\n"
                f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
                "pool_mode = transaction\ndefault_pool_size = 3\nauth_type = trust\n"
                f"auth_file = {users}\nstats_users = {url.username}\n"
            )
            account = ["--user=nobody"] if os.geteuid() == 0 else []
            bouncer = subprocess.Popen(
                [program, "--quiet", *account, str(config)], stderr=subprocess.DEVNULL
            )
            try:
                until(lambda: _listens(port) or bouncer.poll() is not None)
                assert bouncer.poll() is None, "PgBouncer did not start"
                yield port
            finally:
                bouncer.terminate()
                bouncer.wait()

    def verified(self, database: str = "") -> dict[int, str]:
        """What is wrong with the files of each version, of another database if given."""
        if not database:
            return self.deployment.verified()
        settings = self.deployment.settings
        other = Database(self.postgres.url(database), settings.database)
        try:
            return Promoter(other, settings).verify([])
        finally:
            other.dispose()

    def file_of_version(self, version: int, name: str) -> Path:
        """A file of a model version."""
        folder = Path(self.deployment.settings.models.models_url)
        return folder / "isolation_forest" / f"v{version:04d}" / name

    def drafts(self) -> list[Any]:
        """Versions that are being written, or were."""
        return self.deployment.execute("SELECT version FROM anomaly.model_drafts")

    def promote(self, version: int) -> None:
        """Put a version in force from the next reading on, as everybody does."""
        effective = self.deployment.promote(version)
        assert effective is not None
        self.version_map = [
            Entry(None, effective, self.version_map[-1].version),
            Entry(effective, None, version),
        ]

    def crash_server(self) -> None:
        """Stop the server as a crash does."""
        self.deployment.close()
        self.postgres._pg_ctl("stop", "-m", "immediate", "-w")
        assert not self.postgres.running

    def start_server(self) -> None:
        """Start it again, on the same port."""
        self.postgres.start()
        self.deployment.connect()

    def backends(self, condition: str) -> int:
        """How many of the database's other connections are so."""
        ((count,),) = self.deployment.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            f" AND pid <> pg_backend_pid() AND backend_type = 'client backend' AND ({condition})"
        )
        return int(count)

    # What has come of it ----------------------------------------------------

    def damage(self) -> Damage:
        """Compare results, sums, incidents, ledger and meter table with what must be there."""
        deployment = self.deployment
        expected = deployment.expected(self.records, self.version_map)
        found = deployment.results()
        ((doubled,),) = deployment.execute(
            "SELECT count(*) - count(DISTINCT (machine_id, utc_timestamp))"
            "  FROM anomaly.anomaly_results"
        )
        both = expected.keys() & found.keys()
        wrong = [key for key in both if repr(found[key]) != repr(expected[key])]
        wrong += found.keys() - expected.keys()
        says = [
            *differences(
                {key: found[key] for key in wrong}, {k: expected[k] for k in wrong if k in expected}
            ),
            *deployment.wrong_sums(),
            *deployment.wrong_history(),
            *_unlike("incident", deployment.incidents(), deployment.expected_incidents()),
            *_unlike("row", deployment.meter_table(), deployment.as_stored(self.records)),
        ]
        lost = len(expected.keys() - found.keys())
        return Damage(lost, doubled, len(says), says[:5])

    def contents(self) -> dict[str, list[str]]:
        """Every row of every table of the product, as text."""
        names = self.deployment.execute(
            "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables"
            " WHERE schemaname = 'anomaly' ORDER BY 1"
        )
        return {
            name: [
                row
                for (row,) in self.deployment.execute(f"SELECT t::text FROM {name} t ORDER BY 1")
            ]
            for (name,) in names
        }


def _client(server: EmbeddedPostgres, program: str, name: str, *, said: str = "") -> str:
    """Run a program of the server's own version as its administrator."""
    options = ["--quiet", "--set=ON_ERROR_STOP=1"] if program == "psql" else []
    done = subprocess.run(
        [str(server.binaries / program), *options, name],
        env={
            "PGHOST": "127.0.0.1",
            "PGPORT": str(server.port),
            "PGUSER": "postgres",
            "PGPASSWORD": server.password,
        },
        input=said,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _unlike(what: str, found: list[Any], expected: list[Any]) -> list[str]:
    """What is there and must not be, and what must be there and is not."""
    ours, theirs = (Counter(map(repr, each)) for each in (found, expected))
    return [
        *(f"{what} {each} is there" for each in (ours - theirs).elements()),
        *(f"{what} {each} is not there" for each in (theirs - ours).elements()),
    ]


@contextmanager
def disk(folder: Path, size: str) -> Iterator[None]:
    """A disk of its own, of a size such as ``8k``, mounted on a folder."""
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if made.returncode:
        pytest.skip(
            f"no small disk could be mounted ({made.stderr.strip()}): run as root, in a container"
            " with --privileged; CI does, and the table is not written without"
        )
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@contextmanager
def opened(folder: Path) -> Iterator[None]:
    """A folder that the server's account may enter."""
    folder.chmod(0o755)
    yield


def enlarge(folder: Path, size: str) -> None:
    """Make room on a disk that `disk` has mounted."""
    subprocess.run(["mount", "-o", f"remount,size={size}", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Write a file until its disk is full."""
    file = folder / "filling"
    with file.open("wb", buffering=0) as stream:
        for size in (1 << 20, 4096, 1):
            with pytest.raises(OSError, match="No space left"):
                write_for_ever(stream, bytes(size))
    return file


def write_for_ever(stream: BinaryIO, block: bytes) -> None:
    """Write until an error comes."""
    while True:
        stream.write(block)


def put_to_sleep(task: subprocess.Popen[str]) -> None:
    """Stop a process, as SIGSTOP does, and see that it is."""
    task.send_signal(signal.SIGSTOP)
    until(lambda: psutil.Process(task.pid).status() == psutil.STATUS_STOPPED)


def ended(task: subprocess.Popen[str], *, seconds: float = 120) -> None:
    """Wait for a task that must succeed."""
    _, errors = task.communicate(timeout=seconds)
    assert task.returncode == 0, errors


def failed(task: subprocess.Popen[str], because: str, *, seconds: float = 120) -> str:
    """Wait for a task that must fail; its last line names the cause, and nothing is a traceback."""
    _, errors = task.communicate(timeout=seconds)
    lines = errors.strip().splitlines()
    assert task.returncode == 1, (task.returncode, errors)
    assert lines, "it failed without a word"
    assert lines[-1].startswith("error: "), errors
    assert re.search(because, lines[-1]), f"{lines[-1]!r} does not say {because!r}"
    assert "Traceback" not in errors
    return lines[-1]


def until(holds: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.01)
