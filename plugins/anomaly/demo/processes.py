"""Processes that outlive the command that started them, and are ended by identity only."""

import json
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

STOP_SECONDS = 30


class BackgroundProcess:
    """One detached process, remembered in a file by its number and time of birth.

    Parameters
    ----------
    record : Path
        JSON file that says which process it is; a process number that meanwhile
        belongs to another program is never touched.
    log : Path
        Where its output goes.
    """

    def __init__(self, record: Path, log: Path) -> None:
        self.record = record
        self.log = log

    def start(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start the process in a session of its own, unless it runs."""
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
            same = abs(process.create_time() - known["born"]) < 1
        except (FileNotFoundError, psutil.NoSuchProcess):
            return None
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self.process is not None

    def stop(self, gently: signal.Signals = signal.SIGTERM) -> None:
        """End the process and all that it started; does nothing when it has ended."""
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
    """The caller's environment, without what would mislead or slow down what is started.

    Left out are the variables of another Airflow or deployment, and
    ``PYTHONDONTWRITEBYTECODE``: without compiled modules each task would compile
    pandas and SQLAlchemy anew.
    """
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AIRFLOW", "ANOMALY_")) and name != "PYTHONDONTWRITEBYTECODE"
    }
