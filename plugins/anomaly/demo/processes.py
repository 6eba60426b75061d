"""Background processes that outlive their command, and that are stopped only by identity."""

import json
import os
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

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
        """Start the process in its own session, unless it is running.

        What one that was killed has left behind is ended first.
        """
        if self.running:
            return
        self.stop()
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
        known = self._known
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(known["pid"]) if known else None
            # The same start time, up to rounding: a reused number has a later one.
            same = process and abs(process.create_time() - known["born"]) < 1
            return process if same and _lives(process) else None
        return None

    @property
    def running(self) -> bool:
        """Whether the process is running."""
        return self.process is not None

    @property
    def born(self) -> float:
        """When it was started, in seconds since 1970."""
        return float(self._known["born"])

    @property
    def children(self) -> list[str]:
        """Command lines of the processes that it has started; of one that has ended: empty."""
        with suppress(psutil.NoSuchProcess):
            process = self.process
            return [_command_line(child) for child in process.children()] if process else []
        return []

    @property
    def family(self) -> list[psutil.Process]:
        """It and all that it has started, also what has lost its parent but keeps the session.

        Where the first process has ended, the number of the session may be that of another by now,
        so the working folder must be ours.
        """
        known, heirs = self._known, self._heirs

        def is_of_it(process: psutil.Process) -> bool:
            with suppress(psutil.Error, ProcessLookupError, PermissionError):
                return os.getsid(process.pid) == known["pid"] and (
                    bool(heirs) or process.cwd() == str(self.record.parent.resolve())
                )
            return False

        orphans = [each for each in psutil.process_iter() if is_of_it(each)] if known else []
        return [*heirs, *(each for each in orphans if each not in heirs)]

    def stop(self, gently: signal.Signals = signal.SIGTERM) -> None:
        """Stop the process and all processes that it started; does nothing if it has ended."""
        family, heirs = self.family, self._heirs
        for process in family:
            if process not in heirs:  # nobody is left who could tell it to end
                _send(process, signal.SIGKILL)
        for process in heirs[:1]:
            _send(process, gently)
        _, alive = psutil.wait_procs(family, timeout=STOP_SECONDS)
        for survivor in alive:
            _send(survivor, signal.SIGKILL)
        psutil.wait_procs(alive, timeout=STOP_SECONDS)
        self.record.unlink(missing_ok=True)

    @property
    def _heirs(self) -> list[psutil.Process]:
        """The process, and below it what it has started; none when it has ended."""
        with suppress(psutil.NoSuchProcess):
            process = self.process
            return [process, *process.children(recursive=True)] if process else []
        return []

    @property
    def _known(self) -> dict[str, Any]:
        """Its number and start time; empty if it was never started, or stopped."""
        with suppress(FileNotFoundError):
            known: dict[str, Any] = json.loads(self.record.read_text(encoding="utf-8"))
            return known
        return {}

    def last_lines(self, count: int = 15) -> str:
        """The end of its log."""
        if not self.log.exists():
            return ""
        text = self.log.read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-count:])


def _send(process: psutil.Process, number: signal.Signals) -> None:
    with suppress(psutil.NoSuchProcess):
        process.send_signal(number)


def _lives(process: psutil.Process) -> bool:
    return bool(process.status() != psutil.STATUS_ZOMBIE)


def _command_line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()) if _lives(process) else ""
    except psutil.NoSuchProcess:
        return ""


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
