"""A plant that has been scored, and ``anomaly serve`` on it: a process of its own."""

import json
import os
import re
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from anomaly.database.connection import Database
from anomaly.settings import Settings
from command_line import ANOMALY
from deployment import counters, insert, score, train

LEARNT = 96 * 8
"""Quarter-hours that the plant has in its table, scored."""


def plant(database: Database, settings: Settings, machines: int = 5) -> None:
    """Fill a database: eight days of readings, a model, and verdicts."""
    insert(database, counters(LEARNT, machines))
    train(database, settings, LEARNT)
    score(database, settings, 0, LEARNT)


def environment(database: Database, settings: Settings, **more: object) -> dict[str, str]:
    """The variables under which a command works on a database."""
    url = database.engine.url.render_as_string(hide_password=False)
    return {
        "PATH": os.environ["PATH"],
        "HOME": os.environ.get("HOME", "/"),
        "OMP_NUM_THREADS": "1",
        "ANOMALY_DATABASE_URL": url,
        "ANOMALY_MODELS_URL": settings.models.models_url,
        **{f"ANOMALY_{name.upper()}": str(value) for name, value in more.items()},
    }


class ServedApi:
    """The process, a client of it, and what it has logged."""

    def __init__(self, process: subprocess.Popen[str], address: str) -> None:
        self.process = process
        self.address = address
        self.client = httpx.Client(base_url=address, timeout=60)
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stderr or ():
            self.lines.append(line)

    def logged(self, request_id: str) -> Mapping[str, Any]:
        """The line about a request."""
        self._reader.join(0.01)
        for _ in range(500):
            for line in list(self.lines):
                if f'"request_id": "{request_id}"' in line:
                    return json.loads(line)
            self._reader.join(0.02)
        raise AssertionError(f"nothing was logged of {request_id}: {self.lines[-5:]}")


@contextmanager
def serving(variables: Mapping[str, str], *options: str, folder: Path) -> Iterator[ServedApi]:
    """Serve on a free port."""
    process = subprocess.Popen(
        [ANOMALY, "serve", "--port", "0", *options],
        env=dict(variables),
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        line = process.stderr.readline() if process.stderr else ""
        found = re.search(r"http://\S+:\d+", line)
        assert found, line + (process.stderr.read() if process.stderr else "")
        served = ServedApi(process, found[0])
        yield served
        served.client.close()
    finally:
        process.terminate()
        process.wait(timeout=30)
