"""``make demo``: set up a whole deployment on this computer and show its first verdicts."""

import json
import os
import secrets
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from anomaly.database.connection import Database
from anomaly.database.incidents import latest_incidents
from anomaly.database.meter_table import MeterSource
from anomaly.database.migrations import migrate
from anomaly.database.results import counts_per_machine
from anomaly.demo.airflow_server import USER, AirflowServer, AirflowServerError
from anomaly.demo.embedded_postgres import EmbeddedPostgres
from anomaly.demo.feeder import append_missing
from anomaly.demo.first_version import train_first_version
from anomaly.demo.processes import BackgroundProcess, inherited_environment
from anomaly.demo.superset_server import USER as SUPERSET_USER
from anomaly.demo.superset_server import SupersetServer
from anomaly.errors import AnomalyError
from anomaly.operations.machine_changes import change_machine
from anomaly.operations.site_changes import change_price
from anomaly.settings import Settings, load_settings
from anomaly.windows import Window, floor_to_interval
from anomaly.wording import printable, safe_line

PROJECT = Path(__file__).resolve().parents[3]
FOLDER = PROJECT / ".demo"
RECORD, COMMAND_LINE = "demo.json", "env"
WEEKS = 10  # chosen: generated history, enough for a training
SEED = 7
SITES = {"1": "Hall 1", "2": "Hall 2", "3": "Hall 2", "4": "Hall 1", "5": "Hall 1"}
PRICE = (0.24, "EUR")
"""Of the generated machines: where they stand, and what a kWh costs there. Both are chosen."""
OF_READINGS = (
    "ANOMALY_SOURCE_TIMEZONE", "ANOMALY_READING_KIND", "ANOMALY_INTERVAL_MINUTES",
    "ANOMALY_TIMESTAMP_LABEL", "ANOMALY_READING_UNIT",
)  # fmt: skip
"""Settings that describe the user's own file; they are taken from the environment."""
AS_SETTINGS = {
    "--timezone": "ANOMALY_SOURCE_TIMEZONE",
    "--kind": "ANOMALY_READING_KIND",
    "--label": "ANOMALY_TIMESTAMP_LABEL",
    "--unit": "ANOMALY_READING_UNIT",
}
"""Options of `anomaly ingest` that hold for all that the demo does."""

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
console = Console(soft_wrap=True, highlight=False, width=None if sys.stdout.isatty() else 110)


@dataclass(frozen=True)
class Choices:
    """The choices with which the demo was created; stored in ``.demo/demo.json``.

    Attributes
    ----------
    data : str
        The file; empty for generated readings.
    start : str
        Start of the generated readings.
    passwords : dict of str to str
        Passwords of the database log-ins.
    settings : dict of str to str
        The variables of the environment that describe the file's readings.
    options : list of str
        What else is said of the file: options of `anomaly ingest`.
    loaded, scored : bool
        Whether the readings are in the meter table, and have their verdicts.
    """

    data: str
    start: str
    passwords: dict[str, str]
    settings: dict[str, str] = field(default_factory=dict)
    options: list[str] = field(default_factory=list)
    loaded: bool = False
    scored: bool = False


class Demo:
    """The parts of the demo, all below one folder."""

    def __init__(self, folder: Path, data: Path | None, options: Sequence[str] = ()) -> None:
        self.folder = folder
        self.postgres = EmbeddedPostgres(folder / "postgres")
        self._record = folder / RECORD
        self.choices = self._choose(data, options)
        self._feeder = BackgroundProcess(folder / "feeder.json", folder / "feeder.log")

    # Up and down --------------------------------------------------------

    def up(self) -> None:
        """Start everything, and show the verdicts."""
        began = time.monotonic()
        with _step("Postgres"):
            self._start_postgres()
        with _step("schema"):
            migrate(self.database, self.settings.meter_table)
            self.postgres.make_bi_login("bi_reader", "anomaly")
            self.postgres.close_databases()
            # Only migrating needs the right to make roles.
            self.postgres.create_user("anomaly_app", self.choices.passwords["anomaly_app"])
        self.airflow.start(console.print)
        with _step("readings"):
            self._load()
        with _step("model"):
            self._train()
        with _step("Airflow (starting since Postgres was up)") as say:
            self.airflow.wait_until_healthy(say)
        if not self.choices.scored:
            self._score()
        if not self.choices.data:
            self._start_feeder()
        self._show(time.monotonic() - began)

    def stop(self) -> None:
        """Stop what the demo started, and nothing else. The data stay."""
        self._feeder.stop()
        self.stop_superset()
        self._airflow(metadata_url="", anomaly_url="").stop()
        self.postgres.stop()

    def show_superset(self, port: int | None = None) -> None:
        """Start Superset on the running demo, and say where it is."""
        began = time.monotonic()
        if not (self.choices.scored and self.postgres.running):
            raise AnomalyError("the demo is not running: run `make demo`, then `make superset`")
        superset = self._superset(self._url("anomaly", "bi_reader"))
        with _step("Superset's tables and log-in, and the dashboard"):
            superset.start(port)
        with _step("Superset") as say:
            superset.wait_until_healthy(say)
        console.print(f"dashboard {superset.dashboard_url}")
        console.print(f"log-in    {SUPERSET_USER} / {superset.password}", markup=False)
        console.print("stop      make superset-stop (charts stay), make demo-reset (deletes all)")
        console.print(f"ready after {time.monotonic() - began:.0f} s", style="dim")

    def stop_superset(self) -> None:
        """Stop Superset, and nothing else. What it holds stays."""
        self._superset(bi_url="").stop()

    # Parts --------------------------------------------------------------

    @property
    def settings(self) -> Settings:
        """The settings: those that describe the readings, and the demo's own models folder."""
        return load_settings(self.choices.settings, models_url=str(self.folder / "models"))

    @property
    def database(self) -> Database:
        """The product's database, opened with the application's log-in."""
        return Database(self._url("anomaly", "anomaly_app"), self.settings.database)

    @property
    def airflow(self) -> AirflowServer:
        """The demo's Airflow."""
        return self._airflow(
            metadata_url=self._url("airflow", "airflow"),
            anomaly_url=self._url("anomaly", "anomaly_app"),
        )

    def _superset(self, bi_url: str) -> SupersetServer:
        return SupersetServer(self.folder / "superset", project=PROJECT, bi_url=bi_url)

    def _airflow(self, metadata_url: str, anomaly_url: str) -> AirflowServer:
        return AirflowServer(
            self.folder / "airflow",
            project=PROJECT,
            metadata_url=metadata_url,
            anomaly_url=anomaly_url,
            environment=self._variables,
        )

    @property
    def _variables(self) -> dict[str, str]:
        # The user's file is usually old: its readings must not be reported as stale.
        stale = {"ANOMALY_STALE_AFTER_HOURS": "0"} if self.choices.data else {}
        return {
            "ANOMALY_MODELS_URL": str(self.folder / "models"),
            "ANOMALY_CHUNK_DAYS": "14",
            **stale,
            **self.choices.settings,
        }

    def _url(self, database: str, user: str) -> str:
        return self.postgres.url(database, user, self.choices.passwords[user])

    # Steps --------------------------------------------------------------

    def _start_postgres(self) -> None:
        self.postgres.start()
        for user, password in self.choices.passwords.items():
            self.postgres.create_user(user, password, may_create_roles=user == "anomaly_app")
        self.postgres.create_database("airflow", owner="airflow")
        self.postgres.create_database("anomaly", owner="anomaly_app")

    def _load(self) -> None:
        if self.choices.data:
            self._load_file()
        else:
            append_missing(
                self.database, datetime.fromisoformat(self.choices.start), datetime.now(UTC), SEED
            )
        self._write(replace(self.choices, loaded=True))

    def _load_file(self) -> None:
        """Load the user's file as `anomaly ingest` does, and show what it was taken for."""
        command = [str(Path(sys.executable).with_name("anomaly")), "ingest", self.choices.data]
        url = {"ANOMALY_DATABASE_URL": self._url("anomaly", "anomaly_app")}
        done = subprocess.run(
            [*command, *self.choices.options],
            env=inherited_environment() | self._variables | url,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            said = done.stderr.strip() or done.stdout.strip()
            raise AnomalyError(said.removeprefix("error: "))
        for line in done.stdout.splitlines()[:3]:
            console.print(line, style="dim", markup=False)

    def _train(self) -> None:
        now = datetime.now(UTC)
        train_first_version(self.database, self.settings, now, by="make demo")

    def _score(self) -> None:
        """Let Airflow score: the history by one backfill, the last interval by the tick's DAG."""
        first, last = self._extent()
        latest = Window(last, last + self.settings.meter.interval)
        with _step("history, scored by the DAG backfill_scores") as say:
            self.airflow.unpause("backfill_scores")
            ends = {"start": first.isoformat(), "end": latest.start.isoformat()}
            run_id = self.airflow.trigger("backfill_scores", ends | {"preview_first": False})
            self._wait("backfill_scores", run_id, say)
        with _step("latest interval, scored by the DAG score_readings") as say:
            run_id = self._score_latest(latest)
            self._wait("score_readings", run_id, say)
        if self.choices.data:
            self.airflow.unpause("score_readings", paused=True)
        else:
            self._say_what_the_machines_are()
        self._write(replace(self.choices, scored=True))

    def _say_what_the_machines_are(self) -> None:
        """Give the generated machines a site, and their energy a price."""
        for machine, site in SITES.items():
            change_machine(self.database, machine, {"site": site})
        since = datetime.fromisoformat(self.choices.start).date() - timedelta(days=1)
        change_price(self.database, None, *PRICE, since)

    def _score_latest(self, latest: Window) -> str:
        """Start the run of the last interval; return its run_id.

        A file's readings get a run by hand. Generated readings are current, so the schedule
        makes the run.
        """
        if self.choices.data:
            run_id = self.airflow.trigger("score_readings", interval=(latest.start, latest.end))
            self.airflow.unpause("score_readings")
            return run_id
        self.airflow.unpause("score_readings")
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if runs := self.airflow.runs("score_readings"):
                return str(runs[0]["dag_run_id"])
            time.sleep(0.5)
        raise AirflowServerError("the scheduler has made no run of score_readings within 60 s")

    def _wait(self, dag_id: str, run_id: str, say: Any) -> None:
        state = self.airflow.wait_for_run(
            dag_id, run_id, lambda done, count: say(f"{done} of {count} tasks")
        )
        tasks = set(self.airflow.task_states(dag_id, run_id).values())
        if state != "success" or not tasks <= {"success", "skipped"}:
            raise AirflowServerError(
                f"{dag_id} {run_id} has failed: see the task's log at {self.airflow.url}"
            )

    def _extent(self) -> tuple[datetime, datetime]:
        """Times of the first reading and of the newest reading that is due."""
        source = MeterSource(self.settings.meter_table, self.settings.meter)
        with self.database.transaction(read_only=True) as transaction:
            shape = source.describe(transaction)
            extent = source.extent(transaction, shape)
            newest = source.previous_reading(transaction, shape, datetime.now(UTC))
        assert extent is not None
        assert newest is not None
        return extent[0], newest

    def _start_feeder(self) -> None:
        command = [sys.executable, "-m", "anomaly.demo.feeder"]
        command += ["--start", self.choices.start, "--seed", str(SEED)]
        url = {"ANOMALY_DATABASE_URL": self._url("anomaly", "anomaly_app")}
        self._feeder.start(command, inherited_environment() | url)

    # Screen -------------------------------------------------------------

    def _show(self, seconds: float) -> None:
        with self.database.transaction(read_only=True) as transaction:
            machines = [dict(row) for row in counts_per_machine(transaction)]
            incidents = [dict(row) for row in latest_incidents(transaction)]
        total = sum(row["verdicts"] for row in machines)
        _table(f"{total:,} verdicts in anomaly.anomaly_results", machines)
        _table("The latest incidents", incidents)
        program = shlex.quote(str(self.postgres.psql))
        psql = f"PGPASSWORD={self.choices.passwords['bi_reader']} {program}"
        place = f"-h 127.0.0.1 -p {self.postgres.port} -U bi_reader"
        console.print(f"Airflow   {self.airflow.url}")
        console.print(f"log-in    {USER} / {self.airflow.password}", markup=False)
        query = "select * from bi.incidents order by started_at desc limit 5"
        console.print(f'SQL       {psql} {place} anomaly -c "{query}"', markup=False)
        here = shlex.quote(os.path.relpath(self._command_line()))
        console.print(f"CLI       . {here}, then: anomaly status", markup=False)
        console.print("stop      make demo-stop (data stay), make demo-reset (deletes all)")
        console.print(f"ready after {seconds:.0f} s", style="dim")

    def _command_line(self) -> Path:
        """Write the file that a shell sources to use `anomaly` on the demo."""
        url = self._url("anomaly", "anomaly_app")
        values = self._variables | {"ANOMALY_DATABASE_URL": url}
        lines = [f"export {name}={shlex.quote(value)}" for name, value in values.items()]
        lines.append(f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH")
        path = self.folder / COMMAND_LINE
        path.touch(mode=0o600)
        path.write_text("\n".join([*lines, ""]), encoding="utf-8")
        return path

    # The choices --------------------------------------------------------

    def _choose(self, data: Path | None, options: Sequence[str]) -> Choices:
        """The stored choices; new ones if there are none, or if their data were never loaded."""
        if options and data is None:
            raise AnomalyError("DEMO_ARGS says something of a file: name it, DATA=readings.csv")
        if data is not None and not data.is_file():
            raise AnomalyError(f"DATA={data} is not a file: give the path of a file with readings")
        path = str(data.resolve()) if data else ""
        said = {name: os.environ[name] for name in OF_READINGS if os.environ.get(name)}
        more, settings = _settings_and_others(options)
        said = (said | settings) if data else {}
        if self._record.exists():
            known = Choices(**json.loads(self._record.read_text(encoding="utf-8")))
            if not (known.loaded or known.scored):
                return self._write(replace(known, data=path, settings=said, options=more))
            self._refuse_other_data(known, data, said, more)
            return known
        start = floor_to_interval(datetime.now(UTC) - timedelta(weeks=WEEKS), timedelta(days=1))
        users = ("airflow", "anomaly_app", "bi_reader")
        return self._write(
            Choices(
                path,
                start.isoformat(),
                {user: secrets.token_urlsafe(12) for user in users},
                said,
                more,
            )
        )

    def _refuse_other_data(
        self, known: Choices, data: Path | None, said: dict[str, str], options: list[str]
    ) -> None:
        if data is not None and str(data.resolve()) != known.data:
            holds = known.data or "generated readings"
            raise AnomalyError(
                f"the demo holds {holds}: run `make demo-reset` first, then `make demo DATA={data}`"
            )
        for name, value in said.items():
            if known.settings.get(name) != value:
                raise AnomalyError(
                    f"{name} is {value!r}, and the demo was made with"
                    f" {known.settings.get(name, 'none')!r}: unset it, or run `make demo-reset`"
                    f" first, then `make demo DATA={data}`"
                )

        if options and options != known.options:
            raise AnomalyError(
                f"the demo was made with DEMO_ARGS {shlex.join(known.options)!r}, not"
                f" {shlex.join(options)!r}: leave them out, or run `make demo-reset` first"
            )

    def _write(self, choices: Choices) -> Choices:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._record.touch(mode=0o600)
        self._record.write_text(json.dumps(vars(choices)), encoding="utf-8")
        self.choices = choices
        return choices


Folder = Annotated[Path, typer.Option(help="Where the demo lives.")]


def _settings_and_others(options: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The options that are no settings of the demo, and those that are."""
    others, settings = [], {}
    words = iter([part for word in options for part in _divided(word)])
    for word in words:
        if word in AS_SETTINGS:
            settings[AS_SETTINGS[word]] = next(words, "")
        else:
            others.append(word)
    return others, settings


def _divided(word: str) -> list[str]:
    """``--kind=power_w`` as two words; other words as they are."""
    name, equals, value = word.partition("=")
    return [name, value] if equals and name in AS_SETTINGS else [word]


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def up(
    context: typer.Context,
    data: Annotated[
        Path | None, typer.Argument(help="A file of readings, and options of `anomaly ingest`.")
    ] = None,
    folder: Folder = FOLDER,
) -> None:
    """Start the demo."""
    demo = Demo(folder, data, context.args)
    try:
        demo.up()
    except AnomalyError:
        console.print(
            "the parts that were started keep running; `make demo-stop` stops them", style="dim"
        )
        raise


@app.command()
def stop(folder: Folder = FOLDER) -> None:
    """Stop the demo; its data stay."""
    if not (folder / RECORD).exists():
        console.print("there is no demo to stop")
        return
    Demo(folder, None).stop()
    console.print("stopped; `make demo` starts it again in seconds")


@app.command()
def superset(
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Where it listens: 8088, or a free one.")
    ] = None,
    folder: Folder = FOLDER,
) -> None:
    """Start Superset on the running demo."""
    if not (folder / RECORD).exists():
        raise AnomalyError("there is no demo: run `make demo`, then `make superset`")
    Demo(folder, None).show_superset(port)


@app.command()
def superset_stop(folder: Folder = FOLDER) -> None:
    """Stop Superset; what it holds stays."""
    if not (folder / RECORD).exists():
        console.print("there is no demo, and no Superset to stop")
        return
    Demo(folder, None).stop_superset()
    console.print("stopped; `make superset` starts it again")


@app.command()
def reset(folder: Folder = FOLDER) -> None:
    """Stop the demo and delete its data."""
    if folder.exists():
        if not (folder / RECORD).exists():
            raise AnomalyError(f"{folder} does not contain a demo ({RECORD}): nothing was deleted")
        demo = Demo(folder, None)
        demo.stop()
        demo.postgres.destroy()
        for part in ("airflow", "models", "superset"):
            shutil.rmtree(folder / part, ignore_errors=True)
        for file in (RECORD, COMMAND_LINE, "feeder.json", "feeder.log"):
            (folder / file).unlink(missing_ok=True)
        with suppress(OSError):
            folder.rmdir()  # fails, and the folder stays, if it holds other files
    console.print("the demo was deleted; `make demo` creates a new one")


def main() -> None:
    """Run the command; an expected failure prints one message, not a traceback."""
    try:
        app()
    except AnomalyError as error:
        for line in f"error: {error}".split("\n"):
            console.print(safe_line(line), style="red", markup=False)
        sys.exit(1)


@contextmanager
def _step(name: str) -> Iterator[Any]:
    """Show that a step is running, and then how long it took."""
    began = time.monotonic()
    with console.status(name) as status:
        yield lambda detail: status.update(f"{name}: {detail}")
    console.print(f"[green]done[/] {name} ({time.monotonic() - began:.1f} s)")


def _table(title: str, rows: list[dict[str, Any]]) -> None:
    table = Table(title=Text(title), title_justify="left")
    for name in rows[0] if rows else ("nothing",):
        table.add_column(name.replace("_", " "))
    for row in rows:
        table.add_row(*(Text(printable(_shown(value))) for value in row.values()))
    console.print(table)


def _shown(value: object) -> str:
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    if isinstance(value, float | Decimal):
        return f"{value:.1f}"
    return "-" if value is None else str(value)


if __name__ == "__main__":
    os.umask(0o022)
    main()
