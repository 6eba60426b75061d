"""``make bench-api``: calls of the API by HTTP, beside the prototype's shape in the same run.

The API is a process of ``anomaly serve`` with its database, on one core; the prototype's shape is
`benchmarks.records.prototype`, the same number of records judged in a process, without HTTP and
without a database.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
from sqlalchemy import text

from anomaly.database.connection import Database
from anomaly.readings.record import MACHINES
from anomaly.settings import Settings
from anomaly.windows import Window
from benchmarks import records
from benchmarks.deployments import deployment, train_in_force
from benchmarks.figures import PAGE, Figure, in_a_process, print_table, saying, seconds, write_page

TARGETS = {1: 5.0, 1_000: 40.0, 10_000: 300.0}
"""Milliseconds, the middle of `REPEATS` calls."""
REPEATS = {1: 200, 1_000: 30, 10_000: 15}
HISTORY = 35 * 96
"""Quarter-hours of five machines in the meter table: the model's training and a week more."""

_MEMORY = re.compile(r"^process_resident_memory_bytes (\S+)", re.MULTILINE)


def measure() -> list[Figure]:
    """Time calls of each size, and read how much memory the API holds after them."""
    with tempfile.TemporaryDirectory(prefix="anomaly-bench-") as name:
        with saying("the prototype's shape"):
            records.train(Path(name))
            theirs = in_a_process("benchmarks.records", "prototype", name)
        with saying("the API"), deployment() as (database, settings):
            end = _fill(database, settings)
            with _served(database, settings) as client:
                ours = {size: _time_calls(client, size, end) for size in TARGETS}
                megabytes = _resident(client)
    figures = []
    for size, target in TARGETS.items():
        base = theirs[str(size)] * 1e3
        figures.append(
            Figure(
                f"API: {size:,} record{'' if size == 1 else 's'}, middle of {REPEATS[size]} calls",
                ours[size],
                "ms",
                f"the prototype's shape, no HTTP, no database: {base:.1f} ms",
                base / ours[size],
                f"under {target:g} ms",
                ours[size] < target,
            )
        )
    return [*figures, Figure.below("API: resident memory after them", megabytes, "MB", None)]


def _fill(database: Database, settings: Settings) -> datetime:
    """Readings and a model; return the time of the next reading."""
    frame = pd.DataFrame(records.make_records(HISTORY, seed=4))
    frame["utc_timestamp"] = pd.to_datetime(frame["utc_timestamp"], utc=True)
    frame["cet_cest_timestamp"] = pd.to_datetime(frame["cet_cest_timestamp"], utc=True)
    columns = ", ".join(frame.columns)
    values = ", ".join(f":{column}" for column in frame.columns)
    with database.engine.begin() as connection:
        connection.execute(
            text(f"INSERT INTO anomaly.meter_readings ({columns}) VALUES ({values})"),
            [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")],
        )
        connection.execute(text("ANALYZE anomaly.meter_readings"))
    start = frame["utc_timestamp"].iloc[0].to_pydatetime()
    train_in_force(database, settings, Window(start, start + timedelta(days=28)))
    end: datetime = start + HISTORY * timedelta(minutes=15)
    return end


@contextmanager
def _served(database: Database, settings: Settings) -> Iterator[httpx.Client]:
    """A client of the API, which runs on the first core that this process may use."""
    url = database.engine.url.render_as_string(hide_password=False)
    mine = os.sched_getaffinity(0)
    variables = {
        "ANOMALY_DATABASE_URL": url,
        "ANOMALY_MODELS_URL": settings.models.models_url,
        "ANOMALY_API_AT_ONCE": "1",
        "OMP_NUM_THREADS": "1",
        "PATH": os.environ["PATH"],
    }
    command = [str(Path(sys.executable).with_name("anomaly")), "serve", "--port", "0"]
    with tempfile.TemporaryFile("w+") as log:
        server = subprocess.Popen(
            command, env=variables, stderr=subprocess.PIPE, stdout=log, text=True
        )
        os.sched_setaffinity(server.pid, {min(mine)})
        try:
            assert server.stderr is not None
            address = re.search(r"http://\S+:\d+", server.stderr.readline())
            assert address is not None
            # What it logs is read, else its pipe fills up.
            reading = subprocess.Popen(["cat"], stdin=server.stderr, stdout=log)
            with httpx.Client(base_url=address[0], timeout=120) as client:
                yield client
        finally:
            server.terminate()
            server.wait()
            reading.wait()


def _time_calls(client: httpx.Client, size: int, end: datetime) -> float:
    """Milliseconds of the middle of several calls, from what is sent to what has come."""
    sent = records.make_records(HISTORY + size, seed=4)[HISTORY:]
    for number, record in enumerate(sent):
        record["utc_timestamp"] = str(end + number * timedelta(minutes=15))
    path = "/predict_real_time" if size == 1 else "/predict_batch"
    body = json.dumps(sent[0] if size == 1 else sent)

    def call() -> httpx.Response:
        return client.post(path, content=body).raise_for_status()

    assert len(call().json()["prediction_result"]) == size * len(MACHINES)
    return float(np.median([seconds(call) for _ in range(REPEATS[size])])) * 1e3


def _resident(client: httpx.Client) -> float:
    found = _MEMORY.search(client.get("/metrics").text)
    assert found is not None
    return float(found[1]) / 1e6


if __name__ == "__main__":
    measured = measure()
    print_table(measured)
    write_page(PAGE, "bench-api", measured)
