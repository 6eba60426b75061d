"""Background processes that outlive their command, and that are stopped only by identity."""

import json
import os
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from anomaly.errors import AnomalyError

HOST = "127.0.0.1"
STOP_SECONDS = 30


def free_port() -> int:
    """A port of this computer on which nobody listens."""
    with socket.socket() as probe:
        try:
            probe.bind((HOST, 0))
        except OSError:
            raise AnomalyError(
                "there is no free port on 127.0.0.1: end a program that listens"
            ) from None
        return int(probe.getsockname()[1])


def is_free(port: int) -> bool:
    """Whether nobody listens on a port; connections that are still closing do not count."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


class BackgroundProcess:
    """One detached process, recorded in a file by its number and start time.

    Parameters
    ----------
    record : Path
        JSON file that identifies the process. If its number belongs to another program by
        now, that program is never touched.
    log : Path
        File for its output.
    """

    def __init__(self, record: Path, log: Path) -> None:
        self.record = record
        self.log = log

    def start(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start the process in its own session, unless it is running."""
        if self.running:
            return
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                command,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=self.record.parent,
            )
        born = psutil.Process(process.pid).create_time()
        self.record.write_text(json.dumps({"pid": process.pid, "born": born}), encoding="utf-8")

    @property
    def process(self) -> psutil.Process | None:
        """The process, or None when it has ended."""
        try:
            known = json.loads(self.record.read_text(encoding="utf-8"))
            process = psutil.Process(known["pid"])
            # The same start time, up to rounding: a reused number has a later one.
            same = abs(process.create_time() - known["born"]) < 1
        except (FileNotFoundError, psutil.NoSuchProcess):
            return None
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None

    @property
    def running(self) -> bool:
        """Whether the process is running."""
        return self.process is not None

    def stop(self, gently: signal.Signals = signal.SIGTERM) -> None:
        """Stop the process and all processes that it started; does nothing if it has ended."""
        process = self.process
        if process is not None:
            family = [process, *process.children(recursive=True)]
            process.send_signal(gently)
            _, alive = psutil.wait_procs(family, timeout=STOP_SECONDS)
            for survivor in alive:
                survivor.kill()
            psutil.wait_procs(alive, timeout=STOP_SECONDS)
        self.record.unlink(missing_ok=True)

    def last_lines(self, count: int = 15) -> str:
        """The end of its log."""
        if not self.log.exists():
            return ""
        text = self.log.read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-count:])


def inherited_environment() -> dict[str, str]:
    """The caller's environment without variables that would disturb the new process.

    Variables of another Airflow or deployment are left out. So is ``PYTHONDONTWRITEBYTECODE``:
    without compiled modules each task would compile pandas and SQLAlchemy again.
    """
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AIRFLOW", "ANOMALY_")) and name != "PYTHONDONTWRITEBYTECODE"
    }
