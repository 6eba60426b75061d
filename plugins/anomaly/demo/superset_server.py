"""A real Apache Superset on its own port, with the dashboard of ``docker/superset/dashboard``.

It runs in an environment of its own, which ``make superset`` makes; what it stores is in SQLite.
"""

import json
import secrets
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from anomaly.demo.processes import (
    HOST,
    BackgroundProcess,
    free_port,
    inherited_environment,
    is_free,
)
from anomaly.errors import AnomalyError

USER = "admin"
DASHBOARD = "plant"
USUAL_PORT = 8088
POLL_SECONDS = 0.5  # chosen
HEALTHY_SECONDS = 120  # chosen: time limit for the start
PREPARE_SECONDS = 900  # chosen: a slow computer makes Superset's tables in two minutes


class SupersetServerError(AnomalyError):
    """Superset did not start."""


class SupersetServer:
    """Superset's web server as one background process.

    Parameters
    ----------
    folder : Path
        It keeps port, log-in, log and Superset's own database between starts.
    project : Path
        The folder with ``.venv-superset/`` and ``docker/superset/``.
    bi_url : str
        The product's database, with the read-only log-in.
    """

    def __init__(self, folder: Path, *, project: Path, bi_url: str) -> None:
        self.folder = folder
        self.bi_url = bi_url
        self._programs = project / ".venv-superset" / "bin"
        self._scripts = project / "docker" / "superset"
        self._background = BackgroundProcess(folder / "server.json", folder / "superset.log")

    def start(self, port: int | None = None) -> None:
        """Make Superset's tables and log-in, bring the dashboard, and start the server.

        Safe to repeat: a server that runs goes on, with the dashboard as it is in the project.

        Parameters
        ----------
        port : int or None
            Where it listens; None: where it did before, at first 8088, or a free one.

        Raises
        ------
        SupersetServerError
            With the end of the log, when a step fails; or when another program has `port`.
        """
        if not (self._programs / "superset").exists():
            raise SupersetServerError("Superset is not installed: run `make superset`")
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # its database holds log-ins
        self._choose_log_in_and_port(port)
        self._prepare()
        threads = ["--workers", "1", "--worker-class", "gthread", "--threads", "8"]
        where = ["--bind", f"{HOST}:{self._known['port']}", "--timeout", "120"]
        self._background.start(
            [str(self._programs / "gunicorn"), *where, *threads, "superset.app:create_app()"],
            self._environment(),
        )

    def wait_until_healthy(self, say: Callable[[str], None] = lambda _: None) -> None:
        """Wait until it answers.

        Raises
        ------
        SupersetServerError
            With the end of the log, when it has ended or takes too long.
        """
        deadline = time.monotonic() + HEALTHY_SECONDS
        while time.monotonic() < deadline:
            if not self.running:
                raise SupersetServerError(f"superset ended while starting:\n{self._last_lines()}")
            try:
                if httpx.get(f"{self.url}/health", timeout=5, trust_env=False).is_success:
                    return
            except httpx.HTTPError:
                say("waiting for its web server")
            time.sleep(POLL_SECONDS)
        raise SupersetServerError(
            f"superset is not ready after {HEALTHY_SECONDS} s:\n{self._last_lines()}"
        )

    def stop(self) -> None:
        """Stop it and every process that it started; what it stores stays."""
        self._background.stop()

    @property
    def running(self) -> bool:
        """Whether its process is running."""
        return self._background.running

    @property
    def url(self) -> str:
        """The URL of its web pages."""
        return f"http://{HOST}:{self._known['port']}"

    @property
    def dashboard_url(self) -> str:
        """The URL of the dashboard."""
        return f"{self.url}/superset/dashboard/{DASHBOARD}/"

    @property
    def password(self) -> str:
        """The password of the user ``admin``."""
        return str(self._known["password"])

    # Parts --------------------------------------------------------------

    def _prepare(self) -> None:
        command = [str(self._programs / "python"), str(self._scripts / "load_dashboard.py")]
        with self._background.log.open("ab") as log:
            done = subprocess.run(
                [*command, "--prepare"],
                env=self._environment(),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                check=False,
                timeout=PREPARE_SECONDS,
            )
        if done.returncode:
            raise SupersetServerError(f"superset cannot be set up:\n{self._last_lines()}")

    def _environment(self) -> dict[str, str]:
        inherited = {
            name: value
            for name, value in inherited_environment().items()
            if not name.startswith(("SUPERSET", "FLASK", "PYTHONPATH", "GUNICORN"))
        }
        return inherited | {
            "SUPERSET_CONFIG_PATH": str(self._scripts / "superset_config.py"),
            "SUPERSET_HOME": str(self.folder),
            "SUPERSET_DATABASE_URL": f"sqlite:///{self.folder / 'superset.db'}",
            "SUPERSET_SECRET_KEY": str(self._known["secret_key"]),
            "SUPERSET_ADMIN_PASSWORD": self.password,
            "BI_DATABASE_URL": self.bi_url,
        }

    @property
    def _known(self) -> dict[str, str | int]:
        known: dict[str, str | int] = json.loads(self._choices.read_text(encoding="utf-8"))
        return known

    @property
    def _choices(self) -> Path:
        return self.folder / "log-in.json"

    def _choose_log_in_and_port(self, port: int | None) -> None:
        """Choose them once; another port when another program has taken it meanwhile."""
        known = self._known if self._choices.exists() else {}
        if not known:
            known = {"password": secrets.token_urlsafe(12), "secret_key": secrets.token_urlsafe(42)}
        if not self.running:
            wanted = port or int(known.get("port", USUAL_PORT))
            if port and not is_free(port):
                raise SupersetServerError(
                    f"another program listens on port {port}: give another PORT, or none"
                )
            known["port"] = wanted if is_free(wanted) else free_port()
        elif port and port != known["port"]:
            raise SupersetServerError(
                f"Superset runs on port {known['port']}: run `make superset-stop` first, then"
                f" `make superset PORT={port}`"
            )
        self._choices.touch(mode=0o600)
        self._choices.write_text(json.dumps(known), encoding="utf-8")

    def _last_lines(self) -> str:
        return f"{self._background.last_lines()}\nthe whole log is {self._background.log}"
