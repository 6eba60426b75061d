"""An Airflow plugin that takes the time within the task ``score`` of `score_readings`.

It runs in the task's own process. What it measures goes to a file named by the run's id in the
folder that the environment variable `FOLDER` names.
"""

import json
import os
import time
from pathlib import Path
from typing import Any

from airflow.listeners import hookimpl
from airflow.plugins_manager import AirflowPlugin

from benchmarks.clock import Clock

FOLDER = "BENCHMARK_CLOCK_FOLDER"


class TaskClock:
    """What Airflow calls in the task's process.

    Moments are seconds since the epoch: ``entered`` when the process first calls us,
    ``running`` when the DAG file has been read and the task is about to run, ``committed``
    when its results were.
    """

    def __init__(self) -> None:
        self.clock = Clock()
        self.moments: dict[str, float] = {}

    @hookimpl
    def on_starting(self, component: Any) -> None:
        """Airflow's other processes call this too; only a task gets any further."""
        self.moments["entered"] = time.time()

    @hookimpl
    def on_task_instance_running(self, previous_state: Any, task_instance: Any) -> None:
        """Import what the task imports, and watch it."""
        if task_instance.task_id == "score":
            self.moments["running"] = time.time()
            self.clock.watch()

    @hookimpl
    def on_task_instance_success(self, previous_state: Any, task_instance: Any) -> None:
        """Write down what was measured."""
        if task_instance.task_id == "score":
            self.moments["committed"] = self.clock.published
            measured = {"moments": self.moments, "taken": self.clock.taken}
            file = Path(os.environ[FOLDER]) / clock_file(task_instance.run_id)
            file.write_text(json.dumps(measured), encoding="utf-8")


def clock_file(run_id: str) -> str:
    """Name of the file of a run."""
    return f"{run_id.replace('/', '_')}.json"


class ClockPlugin(AirflowPlugin):
    """Registers the listener."""

    name = "benchmark_clock"
    listeners = [TaskClock()]
