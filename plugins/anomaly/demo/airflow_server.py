"""A real Airflow of one computer on its own port, controlled through its REST API."""

import json
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from anomaly.demo.airflow_parts import PARTS
from anomaly.demo.processes import (
    HOST,
    BackgroundProcess,
    free_port,
    inherited_environment,
    is_free,
)
from anomaly.errors import AnomalyError

USER = "admin"
POLL_SECONDS = 0.5  # chosen
NOBODYS_PORT = "1"  # of a service that no computer has any more
HEALTHY_SECONDS = 180  # chosen: time limit for the start


class AirflowServerError(AnomalyError):
    """Airflow did not start, or a run failed."""


class AirflowServer:
    """Airflow's scheduler, DAG processor, triggerer and API server as one background process.

    Parameters
    ----------
    folder : Path
        The ``AIRFLOW_HOME``; it keeps port, log-in and log between starts.
    project : Path
        The folder with ``dags/``; Airflow finds the plugin where the package is installed.
    metadata_url, anomaly_url : str
        URLs of Airflow's own database and of the connection ``anomaly_db``.
    environment : mapping of str to str
        More variables, such as ``ANOMALY_*``.
    """

    def __init__(
        self,
        folder: Path,
        *,
        project: Path,
        metadata_url: str,
        anomaly_url: str,
        environment: Mapping[str, str],
    ) -> None:
        self.folder = folder
        self.project = project
        self.metadata_url = metadata_url
        self.anomaly_url = anomaly_url
        self.environment = dict(environment)
        self._background = BackgroundProcess(folder / "standalone.json", folder / "standalone.log")
        self._token = ""

    # Start and stop -----------------------------------------------------

    def start(self, say: Callable[[str], None] = lambda _: None) -> None:
        """Start it, unless it is running; `wait_until_healthy` waits until it can be used.

        Where one of its parts has ended, all are stopped and started again.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if ended := self._parts()[1]:
            say(f"Airflow's {', '.join(ended)} has ended: Airflow is started again")
            self.stop()
        self._choose_log_in_and_port()
        program = [sys.executable, "-m", "anomaly.demo.airflow_parts"]
        self._background.start(program, self._environment())

    def stop(self) -> None:
        """Stop it and every process that it started."""
        self._background.stop(signal.SIGINT)

    @property
    def running(self) -> bool:
        """Whether its process is running."""
        return self._background.running

    @property
    def url(self) -> str:
        """The URL of its web pages."""
        return f"http://{HOST}:{self._known['port']}"

    @property
    def password(self) -> str:
        """The password of the user ``admin``."""
        return str(self._known["password"])

    @property
    def log(self) -> Path:
        """The file with the output of all its processes."""
        return self._background.log

    def wait_until_healthy(self, say: Callable[[str], None] = lambda _: None) -> None:
        """Wait until each part is alive and at work, and every DAG is known.

        Raises
        ------
        AirflowServerError
            With the end of the log, when Airflow or a part of it has ended, or takes too long.
        """
        deadline = time.monotonic() + HEALTHY_SECONDS
        while time.monotonic() < deadline:
            if not self.running:
                raise AirflowServerError(f"airflow ended while starting:\n{self._last_lines()}")
            alive, ended = self._parts()
            if ended:
                raise AirflowServerError(
                    f"Airflow's {', '.join(ended)} has ended while starting:\n{self._last_lines()}"
                    f"\nthe whole log is {self.log}"
                )
            missing = self._missing()
            if not missing and len(alive) == len(PARTS):
                return
            say(missing or "not every part is started yet")
            time.sleep(POLL_SECONDS)
        raise AirflowServerError(
            f"airflow is not ready after {HEALTHY_SECONDS} s ({self._missing()}):\n"
            f"{self._last_lines()}\nthe whole log is {self.log}"
        )

    # REST ---------------------------------------------------------------

    def unpause(self, dag_id: str, *, paused: bool = False) -> None:
        """Unpause a DAG, or pause it."""
        self._call("PATCH", f"/dags/{dag_id}", {"is_paused": paused})

    def trigger(
        self,
        dag_id: str,
        conf: Mapping[str, Any] | None = None,
        interval: tuple[datetime, datetime] | None = None,
    ) -> str:
        """Start a run by hand, for `interval` if given; return its run_id."""
        body: dict[str, Any] = {"conf": dict(conf or {}), "logical_date": None}
        if interval:
            start, end = (moment.isoformat() for moment in interval)
            body |= {"logical_date": start, "data_interval_start": start, "data_interval_end": end}
        return str(self._call("POST", f"/dags/{dag_id}/dagRuns", body)["dag_run_id"])

    def backfill(self, dag_id: str, first: datetime, last: datetime) -> int:
        """Start Airflow's native backfill of the runs from `first` to `last`, both included."""
        body = {
            "dag_id": dag_id,
            "from_date": first.isoformat(),
            "to_date": last.isoformat(),
            "max_active_runs": 1,
        }
        return int(self._call("POST", "/backfills", body)["id"])

    def runs(self, dag_id: str) -> list[dict[str, Any]]:
        """The runs of a DAG, newest first."""
        found = self._call("GET", f"/dags/{dag_id}/dagRuns?order_by=-run_after&limit=20")
        return list(found["dag_runs"])

    def run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """One run of a DAG, as Airflow's REST API describes it."""
        return self._call("GET", f"/dags/{dag_id}/dagRuns/{run_id}")

    def tasks(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """The tasks of a run, as Airflow's REST API describes them; one per mapped instance."""
        found = self._call("GET", f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances?limit=1000")
        return list(found["task_instances"])

    def wait_for_run(
        self,
        dag_id: str,
        run_id: str,
        say: Callable[[int, int], None] = lambda done, count: None,
        *,
        seconds: float = 600,
    ) -> str:
        """Wait for a run to end; return its state (``success`` or ``failed``).

        Raises
        ------
        AirflowServerError
            When it takes longer than `seconds`.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            state = self.run(dag_id, run_id)["state"]
            tasks = self.tasks(dag_id, run_id)
            say(sum(task["state"] == "success" for task in tasks), len(tasks))
            if state in ("success", "failed"):
                return str(state)
            time.sleep(POLL_SECONDS)
        raise AirflowServerError(f"{dag_id} {run_id} has not ended after {seconds:g} s: {self.url}")

    def cancel(self, dag_id: str, run_id: str) -> None:
        """Mark a run as failed, as a person does in the UI; its tasks are stopped."""
        self._call("PATCH", f"/dags/{dag_id}/dagRuns/{run_id}", {"state": "failed"})

    def clear(self, dag_id: str, run_id: str, *, only_failed: bool = False) -> None:
        """Clear the tasks of a run, so that they run again."""
        body = {"dry_run": False, "only_failed": only_failed}
        self._call("POST", f"/dags/{dag_id}/dagRuns/{run_id}/clear", body)

    def task_states(self, dag_id: str, run_id: str) -> dict[str, str]:
        """State of each task of a run; for a mapped task, that of its last instance."""
        return {task["task_id"]: str(task["state"]) for task in self.tasks(dag_id, run_id)}

    def task_log(
        self, dag_id: str, run_id: str, task_id: str, try_number: int = 1, *, map_index: int = -1
    ) -> str:
        """The log of a task."""
        path = (
            f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{try_number}"
            f"?map_index={map_index}"
        )
        return json.dumps(self._call("GET", path))

    def asset_events(self) -> list[dict[str, Any]]:
        """Events of all assets, newest first."""
        return list(self._call("GET", "/assets/events?order_by=-timestamp")["asset_events"])

    def question(self, dag_id: str, run_id: str, task_id: str) -> dict[str, Any]:
        """What a task asks a person: subject, body, options, and the answer if there is one.

        Raises
        ------
        AirflowServerError
            When the task has not asked yet.
        """
        return self._call("GET", self._question_path(dag_id, run_id, task_id))

    def answer(self, dag_id: str, run_id: str, task_id: str, option: str) -> None:
        """Answer a task's question, as a person does in the UI."""
        path = self._question_path(dag_id, run_id, task_id)
        self._call("PATCH", path, {"chosen_options": [option]})

    def _question_path(self, dag_id: str, run_id: str, task_id: str) -> str:
        return f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/-1/hitlDetails"

    def import_errors(self) -> list[str]:
        """One message per DAG file that could not be read."""
        found = self._call("GET", "/importErrors")["import_errors"]
        return [f"{error['filename']}: {error['stack_trace']}" for error in found]

    def _call(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        if not self._token:
            log_in = {"username": USER, "password": self.password}
            answer = httpx.post(f"{self.url}/auth/token", json=log_in, timeout=30)
            if answer.is_error:
                raise AirflowServerError(
                    f"what answers at {self.url} refuses the demo's log-in ({answer.status_code}):"
                    " another Airflow took the port meanwhile; `make demo-stop`, then `make demo`"
                )
            self._token = answer.json()["access_token"]
        answer = httpx.request(
            method,
            f"{self.url}/api/v2{path}",
            json=body,
            headers={"Authorization": f"Bearer {self._token}"},
            timeout=60,
        )
        if answer.is_error:
            raise AirflowServerError(f"{method} {path}: {answer.status_code} {answer.text}")
        return dict(answer.json())

    # Start --------------------------------------------------------------

    def _parts(self) -> tuple[list[str], list[str]]:
        """The parts that are alive, and those that have ended: nobody starts them again."""
        # The API server's title has an underscore.
        lines = [line.replace("_", "-") for line in self._background.children]
        alive = [part for part in PARTS if any(f"airflow {part}" in line for line in lines)]
        have_begun = len(lines) == len(PARTS)
        ended = [part for part in PARTS if part not in alive]
        return alive, ended if have_begun and "" in lines else []

    def _missing(self) -> str:
        """What is not ready yet, in words; empty if everything is ready."""
        try:
            return self._not_at_work() or self._unread_dags()
        except httpx.HTTPError:
            return "the web server does not answer yet"

    def _not_at_work(self) -> str:
        health = httpx.get(f"{self.url}/api/v2/monitor/health", timeout=5).json()

        def works(name: str) -> bool:
            # A heartbeat stays fresh for a while after its part has ended.
            said = health.get(name) or {}
            beat = said.get(f"latest_{name}_heartbeat")
            is_of_before = beat and datetime.fromisoformat(beat).timestamp() < self._background.born
            return said.get("status") == "healthy" and not is_of_before

        names = ("metadatabase", "scheduler", "dag_processor", "triggerer")
        waiting = [name for name in names if not works(name)]
        return f"{', '.join(waiting)} not ready yet" if waiting else ""

    def _unread_dags(self) -> str:
        known = {dag["dag_id"] for dag in self._call("GET", "/dags?limit=100")["dags"]}
        prefix = self.environment.get("ANOMALY_DAG_PREFIX", "")
        expected = {prefix + path.stem for path in (self.project / "dags").glob("*.py")}
        unread = expected - known
        if unread and (errors := self.import_errors()):
            raise AirflowServerError("\n".join(errors))
        return f"DAGs not read yet: {', '.join(sorted(unread))}" if unread else ""

    @property
    def _known(self) -> dict[str, Any]:
        known: dict[str, Any] = json.loads(self._state.read_text(encoding="utf-8"))
        return known

    @property
    def _state(self) -> Path:
        return self.folder / "server.json"

    def _choose_log_in_and_port(self) -> None:
        """Keep the stored choices; a port that another program has taken is chosen again."""
        known = self._known if self._state.exists() else {}
        if not self.running:
            wanted = int(known.get("port", 8080))
            known["port"] = wanted if is_free(wanted) else free_port()
        for secret in ("password", "jwt", "fernet"):
            known.setdefault(secret, _secret(secret))
        _write_private(self._state, json.dumps(known))
        _write_private(self.folder / "passwords.json", json.dumps({USER: known["password"]}))

    def _environment(self) -> dict[str, str]:
        known = self._known
        binaries = str(Path(sys.executable).parent)
        path = os.pathsep.join([binaries, os.environ.get("PATH", os.defpath)])
        cores = os.cpu_count() or 2
        options = {
            "CORE__DAGS_FOLDER": str(self.project / "dags"),
            "CORE__LOAD_EXAMPLES": "False",
            # On a busy machine a DAG file may take longer than Airflow's 30 s.
            "CORE__DAGBAG_IMPORT_TIMEOUT": "120",
            "DAG_PROCESSOR__DAG_FILE_PROCESSOR_TIMEOUT": "150",
            "CORE__EXECUTOR": "LocalExecutor",
            "CORE__PARALLELISM": str(max(2, cores)),
            "CORE__FERNET_KEY": known["fernet"],
            "CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:admin",
            "CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
            "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(self.folder / "passwords.json"),
            "CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "DATABASE__SQL_ALCHEMY_CONN": self.metadata_url,
            "API__HOST": HOST,
            "API__PORT": str(known["port"]),
            "API__BASE_URL": self.url,
            "API__WORKERS": "1",
            "API__SECRET_KEY": known["jwt"],
            "API_AUTH__JWT_SECRET": known["jwt"],
            # Logs are read from their files. That of a task at work is asked for by HTTP as well,
            # which must not reach another Airflow's log server.
            "LOGGING__WORKER_LOG_SERVER_PORT": NOBODYS_PORT,
            "LOGGING__TRIGGER_LOG_SERVER_PORT": NOBODYS_PORT,
            "DAG_PROCESSOR__REFRESH_INTERVAL": "30",
            "SCHEDULER__ENABLE_HEALTH_CHECK": "False",
            "USAGE_DATA_COLLECTION__ENABLED": "False",
        }
        return {
            **inherited_environment(),
            **{f"AIRFLOW__{name}": value for name, value in options.items()},
            "AIRFLOW_HOME": str(self.folder),
            "AIRFLOW_CONN_ANOMALY_DB": self.anomaly_url.replace("postgresql+psycopg2", "postgres"),
            "PATH": path,
            "PYTHONUNBUFFERED": "1",
            **self.environment,
        }

    def _last_lines(self) -> str:
        return self._background.last_lines()


def _secret(kind: str) -> str:
    if kind == "fernet":
        import base64

        return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
    return secrets.token_urlsafe(12 if kind == "password" else 48)


def _write_private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_text(text, encoding="utf-8")
