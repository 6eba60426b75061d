"""Runs the services of docker-compose.yml without a container engine.

A service gets what an engine would give it: its own command, environment and health check, a root
folder of its own (this computer's, and above it what the Dockerfile copies and what the service
mounts), a host name, its processes in a namespace, and the names of the other services. All share
one private network that has nothing but loopback, so the ports are those of the compose file too.

What it does not run is the image: programs are those of the virtual environment and of Debian, as
the user who runs the tests, and memory limits do not count.
"""

import ctypes
import fcntl
import os
import re
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import yaml

PROJECT = Path(__file__).parents[1]
POSTGRES_BINARIES = Path("/usr/lib/postgresql/15/bin")
BINARIES = Path(sys.executable).parent
PROFILES = ("bi", "demo", "flower")
CLONE_NEWNET = 0x40000000
SIOCSIFFLAGS, IFF_UP, IFF_RUNNING = 0x8914, 0x1, 0x40
START_SECONDS = 150

# What the entry point of the image `postgres` does: make the server once, and leave root.
POSTGRES_ENTRY_POINT = """
mkdir -p "$PGDATA" /var/run/postgresql
chown -R postgres "$PGDATA" /var/run/postgresql
become="setpriv --reuid=postgres --regid=postgres --init-groups"
if [ ! -e "$PGDATA/PG_VERSION" ]; then
    printf '%s' "$POSTGRES_PASSWORD" > /password; chmod 644 /password
    $become initdb --username=postgres --pwfile=/password --auth=scram-sha-256 \\
        --encoding=UTF8 --no-locale --no-sync
    echo 'host all all all scram-sha-256' >> "$PGDATA/pg_hba.conf"
fi
exec $become "$@" -c listen_addresses='*' -c fsync=off -c timezone=UTC
"""


def missing() -> str:
    """Why services cannot be run here; empty: they can."""
    if os.geteuid() != 0:
        return "only root may give each service a root folder and a host name of its own"
    for program in ("docker-compose", "redis-server", "setpriv", "tini", "unshare"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    if not POSTGRES_BINARIES.is_dir():
        return "Debian's postgresql-15 is not installed"
    works = subprocess.run(["unshare", "--net", "--mount", "--pid", "--fork", "true"], check=False)
    return "" if works.returncode == 0 else "this computer allows no namespaces"


@contextmanager
def private_network() -> Iterator[None]:
    """Put this thread, and what it starts, into a network of its own that has only loopback."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/proc/thread-self/ns/net").open() as before:
        if libc.unshare(CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "unshare")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            flags = struct.pack("16sH14x", b"lo", IFF_UP | IFF_RUNNING)
            fcntl.ioctl(control, SIOCSIFFLAGS, flags)
        try:
            yield
        finally:
            libc.setns(before.fileno(), CLONE_NEWNET)


class Compose:
    """The services of a compose file, each run as a `Container` when asked for.

    Parameters
    ----------
    project : Path
        Folder with ``docker-compose.yml``, ``docker/`` and ``.env``.
    folder : Path
        Where volumes, roots and logs lie.
    """

    def __init__(self, project: Path, folder: Path) -> None:
        self.project = project
        self.folder = folder
        self.services = configuration(project)["services"]
        self.containers: dict[str, Container] = {}

    def __getitem__(self, name: str) -> "Container":
        return self.containers[name]

    def up(self, *names: str) -> None:
        """Start services in the order of their `depends_on`, each when those are ready."""
        for name in names:
            self._start_after_what_it_needs(name)

    def scale(self, service: str, count: int, **environment: str) -> None:
        """Start more containers of a service, as `--scale` does."""
        for number in range(2, count + 1):
            container = Container(self, service, number, environment)
            self.containers[container.name] = container
            container.start()

    def down(self) -> None:
        """Stop everything, the last one first."""
        for container in reversed(self.containers.values()):
            container.kill()

    def _start_after_what_it_needs(self, name: str) -> None:
        if name in self.containers:
            return
        for needed, how in self.services[name].get("depends_on", {}).items():
            self._start_after_what_it_needs(needed)
            if how["condition"] == "service_completed_successfully":
                self.containers[needed].wait_until_completed()
            else:
                self.containers[needed].wait_until_healthy()
        container = self.containers[name] = Container(self, name, 1, {})
        container.start()


class Container:
    """One container of a service."""

    def __init__(
        self, compose: Compose, service: str, number: int, environment: dict[str, str]
    ) -> None:
        self.compose = compose
        self.service = compose.services[service]
        self.name = service if number == 1 else f"{service}-{number}"
        self.hostname = f"{service}-{number}"
        self.root = compose.folder / "roots" / self.name
        self.log = compose.folder / f"{self.name}.log"
        self.environment = self._environment() | environment
        self._process: subprocess.Popen[bytes] | None = None

    # Life ---------------------------------------------------------------

    def start(self) -> None:
        """Start the service's command."""
        self.root.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*_IN_NAMESPACES, "sh", "-ec", self._script(self._command())],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def stop(self) -> None:
        """Stop it as `docker compose stop` does: SIGTERM to its first process."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill its first process, and with it all others, as an engine does."""
        self._signal(signal.SIGKILL)

    def restart(self) -> None:
        """Stop it, and start it again."""
        self.stop()
        self.start()

    @property
    def first_process(self) -> psutil.Process | None:
        """The process with number 1 in the container."""
        assert self._process is not None
        try:
            (child,) = psutil.Process(self._process.pid).children()
        except (psutil.NoSuchProcess, ValueError):
            return None
        return child

    def wait_until_healthy(self, seconds: float = START_SECONDS) -> None:
        """Wait until the service's own health check succeeds."""
        deadline = time.monotonic() + seconds
        while (found := self.check_health()).returncode != 0:
            assert self._process is not None
            assert self._process.poll() is None, f"{self.name} has ended:\n{self.last_lines()}"
            assert time.monotonic() < deadline, (
                f"{self.name} is not healthy after {seconds:g} s: {found.stdout}{found.stderr}\n"
                f"{self.last_lines()}"
            )
            time.sleep(0.5)

    def wait_until_completed(self) -> None:
        """Wait until a service that runs once has ended well."""
        assert self._process is not None
        code = self._process.wait(timeout=START_SECONDS)
        assert code == 0, f"{self.name} ended with {code}:\n{self.last_lines()}"

    def check_health(self) -> subprocess.CompletedProcess[str]:
        """Run the service's own health check once."""
        kind, *command = self.service["healthcheck"]["test"]
        return self.run(*(["sh", "-c", *command] if kind == "CMD-SHELL" else command))

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the container's surroundings, as `docker compose exec` does."""
        script = self._script([_unescaped(word) for word in command])
        return subprocess.run(
            [*_IN_NAMESPACES, "sh", "-ec", script],
            env=self.environment | environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=START_SECONDS,
        )

    def last_lines(self, count: int = 40) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:])

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        first = self.first_process
        if first is not None:
            first.send_signal(number)
        # An engine kills after the time of grace.
        try:
            self._process.wait(timeout=_seconds(self.service.get("stop_grace_period", "10s")))
        except subprocess.TimeoutExpired:
            assert first is not None
            first.kill()
            self._process.wait(timeout=30)

    # What it runs -------------------------------------------------------

    def _command(self) -> list[str]:
        command = [_unescaped(word) for word in self.service["command"]]
        if self.service["image"].startswith("postgres:") and command[0] == "postgres":
            command = ["sh", "-ec", POSTGRES_ENTRY_POINT, "entry-point", *command]
        if user := self.service.get("user"):
            command = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", *command]
        if self.service.get("cap_drop") == ["ALL"] and not user:
            limits = ["--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"]
            command = ["setpriv", *limits, *command]
        # Docker gives it to those with `init: true`. Here all have it: a first process that
        # becomes another user would outlive tests that are killed.
        return ["tini", "--", *command]

    def _environment(self) -> dict[str, str]:
        image = self.service["image"]
        built_in = image_environment(PROJECT / "Dockerfile") if image.startswith("anomaly:") else {}
        path = [BINARIES, "/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"]
        if image.startswith("postgres:"):
            path.insert(0, POSTGRES_BINARIES)
            built_in["PGDATA"] = "/var/lib/postgresql/18/docker"
        own = {name: str(value) for name, value in self.service.get("environment", {}).items()}
        return {
            **built_in,
            "LANG": "C.UTF-8",
            "HOME": "/root",
            "PATH": ":".join(map(str, path)),
            "HOSTNAME": self.hostname,
            **own,
        }

    def _script(self, command: list[str]) -> str:
        """Make the root folder, enter it, and become the command."""
        place = self.root
        root = place / "root"
        options = f"lowerdir=/,upperdir={place}/upper,workdir={place}/work"
        # In memory, and in this namespace only: what it writes beside its volumes is not kept.
        lines = [
            f"hostname {self.hostname}",
            f"mount -t tmpfs tmpfs {place}",
            f"mkdir {place}/upper {place}/work {root}",
            f"mount -t overlay overlay -o {options} {root}",
        ]
        lines += [f"mount -t proc proc {root}/proc", f"mount --rbind /dev {root}/dev"]
        # The virtual environment, which keeps compiled modules, lies in the project.
        for folder in {PROJECT, BINARIES.parent}:
            lines.append(f"mkdir -p {root}{folder} && mount --rbind {folder} {root}{folder}")
        names = " ".join([*self.compose.services, "localhost", self.hostname])
        lines.append(f"echo '127.0.0.1 {names}' > {root}/etc/hosts")
        lines += self._copied(root)
        lines += [
            line
            for volume in self.service.get("volumes", [])
            for line in self._mounted(volume, root)
        ]
        workdir = "/opt/airflow" if self.service["image"].startswith("anomaly:") else "/"
        entered = f"cd {workdir} && exec {shlex.join(command)}"
        lines.append(f"exec chroot {root} sh -c {shlex.quote(entered)}")
        return "\n".join(lines)

    def _copied(self, root: Path) -> list[str]:
        """Commands that copy into the root what the Dockerfile copies from the project."""
        if not self.service["image"].startswith("anomaly:"):
            return []
        lines = []
        for source, target in copied_files(PROJECT / "Dockerfile"):
            folder = root / Path(target).relative_to("/").parent
            lines.append(
                f"mkdir -p {folder} && cp -r {PROJECT / source} {folder}/.copied"
                f" && rm -rf {root}{target} && mv {folder}/.copied {root}{target}"
            )
        return lines

    def _mounted(self, volume: str, root: Path) -> list[str]:
        source, target = volume.removesuffix(":rw").removesuffix(":ro").split(":")
        if not source.startswith("/"):
            place = self.compose.folder / "volumes" / source
            place.mkdir(parents=True, exist_ok=True)
            if user := self.service.get("user"):
                shutil.chown(place, user)
            return [f"mkdir -p {root}{target}", f"mount --bind {place} {root}{target}"]
        return [f"touch {root}{target}", f"mount --bind {source} {root}{target}"]


# If the tests are killed, so is what they started.
_IN_NAMESPACES = ["setpriv", "--pdeathsig=KILL", "unshare", "--mount", "--uts", "--pid", "--fork"]
_IN_NAMESPACES += ["--kill-child"]


def configuration(project: Path) -> dict[str, Any]:
    """The compose file with the values of .env, as docker-compose reads it."""
    options = [word for profile in PROFILES for word in ("--profile", profile)]
    done = subprocess.run(
        ["docker-compose", *options, "config"],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = yaml.safe_load(done.stdout)
    return found


def last_stage(dockerfile: Path) -> list[list[str]]:
    """The instructions of a Dockerfile's last stage, each split into words."""
    text = dockerfile.read_text()
    joined = re.sub(r"\\\n", " ", re.sub(r"(?m)^\s*#.*\n", "", text))
    stage: list[list[str]] = []
    for line in filter(str.strip, joined.splitlines()):
        words = shlex.split(line)
        stage = [] if words[0] == "FROM" else [*stage, words]
    return stage


def image_environment(dockerfile: Path) -> dict[str, str]:
    """The variables that an image sets, but for its PATH."""
    pairs = [
        word.split("=", 1)
        for words in last_stage(dockerfile)
        if words[0] == "ENV"
        for word in words[1:]
    ]
    return {name: value for name, value in pairs if name != "PATH"}


def copied_files(dockerfile: Path) -> list[tuple[str, str]]:
    """What an image copies from the project, and where to."""
    return [
        (words[1], words[2])
        for words in last_stage(dockerfile)
        if words[0] == "COPY" and not words[1].startswith("--from")
    ]


def _unescaped(word: str) -> str:
    return word.replace("$$", "$")


def _seconds(duration: str) -> float:
    units = {"h": 3600, "m": 60, "s": 1}
    return sum(float(n) * units[unit] for n, unit in re.findall(r"([\d.]+)([hms])", duration))
