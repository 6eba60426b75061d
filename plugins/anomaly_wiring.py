"""What the DAGs share: settings, the deployment behind the connection, windows and events.

The product's own code is imported inside tasks only, so that parsing stays cheap. This module lies
beside the plugin, not beside the DAG files: these may be put into any folder.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from importlib import import_module
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any

from airflow.sdk import (
    Asset,
    AsyncCallback,
    Context,
    DeadlineAlert,
    DeadlineReference,
    SyncCallback,
)
from airflow.sdk.bases.notifier import BaseNotifier
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from anomaly.errors import SettingsError
from anomaly.installation import conflict
from anomaly.settings import DagSettings, Settings

if TYPE_CHECKING:
    from anomaly.database.connection import Database
    from anomaly.database.scoring_runs import RequestedBy
    from anomaly.lifecycle.promotion import Promoted
    from anomaly.scoring.publishing import ScoreReport
    from anomaly.windows import Window

log = logging.getLogger(__name__)

CONNECTION = "anomaly_db"
MACHINES = "anomaly_machines"
"""Airflow's variable with the machines' names, for the form of backfills: a DAG file that asked the
database itself would do so whenever it is parsed."""
MOST_NAMES = 1000
SENDER = "send_alerts"
"""Sends what waits in the outbox."""
TOLD = "anomaly_told_at_once"
"""Airflow's variable with the newest failure that was told past the outbox."""
# Airflow leaves out the tasks of a run before this day, and calls it a success.
FIRST_DAY = datetime(2000, 1, 1, tzinfo=UTC)
SCORES = Asset("anomaly_scores", uri="x-anomaly://results/scores")
BACKFILLS = Asset("anomaly_backfills", uri="x-anomaly://results/backfills")
MODELS = Asset("anomaly_models", uri="x-anomaly://models/in-force")

if two_versions := conflict():  # the import error of every DAG, and not a silent mixture
    raise SettingsError(two_versions)


def default_args(
    settings: Settings, run_timeout: timedelta, *, tells: bool = False
) -> dict[str, Any]:
    """What every task carries: owner, pool, retries, its end and what to call when it fails.

    A task has half of its run's time, so that a retry of one that hangs still fits in. With
    `tells`, people are told when it has failed.
    """
    dag_settings = settings.dags
    callbacks: list[Callable[[Context], None]] = []
    if dag_settings.dag_failure_callback:
        callbacks.append(_callback("FAILURE", dag_settings.dag_failure_callback))
    if tells and settings.alerts.alert_routes:
        callbacks.append(FailedTask(settings))
    arguments: dict[str, Any] = {
        "owner": dag_settings.dag_owner,
        "pool": dag_settings.dag_pool,
        "retries": dag_settings.dag_retries,
        "retry_delay": timedelta(seconds=dag_settings.dag_retry_delay_seconds),
        "execution_timeout": run_timeout / 2,
    }
    if callbacks:
        arguments["on_failure_callback"] = callbacks
    return arguments


class ToldAnywayError(AirflowFailException):
    """Fails a task for a reason of which `send_alerts` tells by itself."""


class FailedTask(BaseNotifier):  # type: ignore[misc]
    """An Airflow notifier: writes the failure of a task into the outbox, once per task and day.

    Where the database cannot be used, or the sender itself has failed, the routes of the pipeline
    are told at once, once a day.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings = settings

    def notify(self, context: Context) -> None:
        """Tell of the task in `context`."""
        from anomaly.operations.task_failures import FailedRun, tell_at_once, tell_failure

        error = context.get("exception")
        if isinstance(error, ToldAnywayError):
            return
        task = context["ti"]
        failed = FailedRun(task.dag_id, task.task_id, task.run_id, str(error or "it was killed"))
        now = datetime.now(UTC)
        trouble = ""
        if task.dag_id == self.settings.dags.dag_prefix + SENDER:
            trouble = "what sends its messages is what has failed"
        else:
            try:
                with deployment(self.settings) as database:
                    tell_failure(database, failed, now)
            except AirflowException as unusable:
                trouble = str(unusable)
        if trouble and not _is_told(now) and tell_at_once(self.settings, failed, trouble, now):
            _note_told(now)


def _is_told(now: datetime) -> bool:
    """Whether people were told past the outbox today."""
    from airflow.sdk import Variable

    try:
        return bool(Variable.get(TOLD, default=None) == now.date().isoformat())
    except Exception as error:  # rather twice than never
        log.warning("it is not known whether people were told today: %s", error)
        return False


def _note_told(now: datetime) -> None:
    from airflow.sdk import Variable

    try:
        Variable.set(TOLD, now.date().isoformat(), "When a failure was last told past the outbox")
    except Exception as error:
        log.warning("people may be told again today: %s", error)


def deadline(dag_settings: DagSettings, schedule: timedelta) -> DeadlineAlert | None:
    """What a run on `schedule` calls when it has not ended in time; None without a callback.

    Airflow counts from the start of the run's interval. It runs an ordinary function in the
    executor, as it does tasks, and an ``async`` one in the triggerer.
    """
    path = dag_settings.dag_deadline_callback
    if not path:
        return None
    is_async = iscoroutinefunction(_callback("DEADLINE", path))
    return DeadlineAlert(
        reference=DeadlineReference.DAGRUN_LOGICAL_DATE,
        interval=schedule + dag_settings.deadline,
        callback=AsyncCallback(path) if is_async else SyncCallback(path),
    )


@contextmanager
def deployment(settings: Settings) -> Iterator[Database]:
    """Open the database of the connection ``anomaly_db``.

    A failure ends the task with one line that says what to do: at once where no retry can
    help, else to be retried.
    """
    from airflow.sdk import Connection
    from airflow.sdk.exceptions import AirflowNotFoundException

    from anomaly.database.connection import Database
    from anomaly.database.explained_errors import EXPLAINED, explained
    from anomaly.database.migrations import check_migrated
    from anomaly.errors import AnomalyError, DatabaseError, RefusedError, StaleAttemptError
    from anomaly.wording import safe_line

    _log_published_windows()
    try:
        database = Database(Connection.get(CONNECTION).get_uri(), settings.database)
        try:
            check_migrated(database)
            yield database
        finally:
            database.dispose()
    except AirflowNotFoundException:  # no plain failure: nothing that a retry finds
        message = (
            f"there is no Airflow connection {CONNECTION!r}: add it by `airflow connections add"
            f" {CONNECTION} --conn-uri postgresql://...`"
        )
        print(f"error: {message}")
        raise AirflowFailException(message) from None
    except (AnomalyError, *EXPLAINED) as error:
        found = explained(error)
        passing = isinstance(found, (DatabaseError, StaleAttemptError))
        lasting = isinstance(found, RefusedError) or not passing
        kind = AirflowFailException if lasting else AirflowException
        message = safe_line(str(found))
        # A line of its own: Airflow's own record of the failure begins with addresses.
        print(f"error: {message}")
        raise kind(message) from None


def _log_published_windows() -> None:
    """Put each published window into the task's log, its facts as fields of their own."""
    import structlog

    class Forward(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            structlog.get_logger(record.name).info(record.getMessage(), **record.published)

    published = logging.getLogger("anomaly.published")
    published.setLevel(logging.INFO)
    published.propagate = False
    published.handlers[:] = [Forward()]


def interval_of(context: Context, interval: timedelta) -> Window:
    """The interval that a run is about.

    A scheduled run has it; a run triggered by hand, by an asset or without a
    logical date has none, and is about the last interval that was complete
    when it was due.
    """
    from anomaly.windows import Window, floor_to_interval

    start, end = context.get("data_interval_start"), context.get("data_interval_end")
    if start and end and start < end:
        return Window(start, end)
    run_after = context["dag_run"].run_after
    due = floor_to_interval(run_after, interval)
    return Window(due - interval, due)


def due_at(context: Context, interval: timedelta) -> datetime:
    """When a run was due: a scheduled one at its interval's end, any other when it was started.

    Airflow gives a run that was started by hand the last interval of the schedule, which
    for a daily or weekly DAG ended hours or days before.
    """
    run = context["dag_run"]
    if str(run.run_type) in ("scheduled", "backfill"):
        return interval_of(context, interval).end
    from anomaly.windows import floor_to_interval

    return floor_to_interval(run.run_after, interval)


def requested_by(context: Context) -> RequestedBy:
    """Who asks: for the ledger."""
    from anomaly.database.scoring_runs import RequestedBy

    dag_run = context["dag_run"]
    return RequestedBy(dag_run.dag_id, dag_run.dag_id, dag_run.run_id)


def machine_names() -> list[str]:
    """Names to choose from in a form; none before the first scoring, then names are written."""
    from airflow.sdk import Variable

    try:
        names = Variable.get(MACHINES, default=[], deserialize_json=True)
    except Exception as error:  # no form may break a DAG, whatever is wrong with the variable
        log.warning("the machines of the form are not known: %s", error)
        return []
    return [str(name) for name in names] if isinstance(names, list) else []


def keep_machine_names(database: Database) -> None:
    """Keep the machines' names for the form, where they have changed."""
    from airflow.sdk import Variable

    from anomaly.database.connection import SCORER
    from anomaly.database.machines import choosable_names

    with database.transaction(SCORER, read_only=True) as transaction:
        names = choosable_names(transaction)[:MOST_NAMES]
    if names == machine_names():
        return
    about = "Machines of the form of backfill_scores"
    try:
        Variable.set(MACHINES, names, about, serialize_json=True)
    except Exception as error:  # no tick fails for a form
        log.warning("the machines' names could not be kept for the form: %s", error)


def announce(context: Context, asset: Asset, window: Window, **details: Any) -> None:
    """Put the window and what was counted into the asset's event."""
    context["outlet_events"][asset].extra = {
        "window_start": window.start.isoformat(),
        "window_end": window.end.isoformat(),
        **details,
    }


def announce_scores(context: Context, window: Window, report: ScoreReport) -> dict[str, int]:
    """Announce what was published, else `window`; return the counts for log and XCom."""
    announce(context, SCORES, report.span() or window, **report.counts())
    measure(context, report)
    return report.counts()


def measure(context: Context, report: ScoreReport) -> None:
    """Hand counts to Airflow's own metrics (OpenTelemetry or StatsD); nothing where they are off.

    They say what this run did. What is true of the whole deployment: `anomaly metrics`.
    """
    from airflow.sdk.observability import stats

    tags = {"dag_id": context["dag_run"].dag_id}
    stats.incr("anomaly.readings_scored", report.inserted, tags=tags)
    stats.incr("anomaly.verdicts_repaired", report.updated, tags=tags)
    stats.incr("anomaly.verdicts_retracted", report.retracted, tags=tags)
    stats.incr("anomaly.abnormal_verdicts", report.anomalies, tags=tags)


def measure_ages(database: Database, settings: Settings) -> None:
    """Hand the lag of scoring and the age of the newest reading to Airflow's own metrics."""
    from airflow.sdk.observability import stats

    from anomaly.database.connection import SCORER
    from anomaly.database.scoring_runs import live_coverage
    from anomaly.operations.status import newest_reading

    now = datetime.now(UTC)
    newest = newest_reading(database, settings.meter_table, settings.meter, now)
    with database.transaction(SCORER, read_only=True) as transaction:
        watermark = live_coverage(transaction).watermark
    if watermark:
        stats.gauge("anomaly.lag_seconds", (now - watermark).total_seconds())
    if newest:
        age = now - (newest + settings.meter.interval)
        stats.gauge("anomaly.freshness_seconds", age.total_seconds())


def tell_lineage(
    context: Context, database: Database, settings: Settings, folder: str | None = None
) -> None:
    """Tell OpenLineage what a task reads and writes, where its provider is installed.

    It reads the meter table, and writes the results, or the model's files in `folder`. The
    provider takes the task's inlets and outlets when the task ends, so they can name the database
    that is behind the connection.
    """
    try:
        from openlineage.client.event_v2 import Dataset
    except ImportError:
        return
    task, url = context["ti"].task, database.engine.url
    server = f"postgres://{url.host or 'localhost'}:{url.port or 5432}"
    meters = Dataset(server, f"{url.database}.{settings.meter_table.source_name}")
    written = Dataset(server, f"{url.database}.anomaly.anomaly_results")
    if folder is not None:
        scheme, _, place = folder.rpartition("://")
        bucket, _, key = place.partition("/")
        in_bucket = scheme not in ("", "file")
        written = Dataset(f"{scheme}://{bucket}", key) if in_bucket else Dataset("file", place)
    task.inlets = [*task.inlets, meters]
    task.outlets = [*task.outlets, written]


def announce_promotion(context: Context, promoted: Promoted, **details: Any) -> dict[str, Any]:
    """Announce a promotion in the event of `MODELS`; return it for log and XCom."""
    found = {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in promoted.as_dict().items()
    }
    context["outlet_events"][MODELS].extra = found | details
    return found | details


def _callback(kind: str, dotted_path: str) -> Callable[[Context], None]:
    module, _, name = dotted_path.rpartition(".")
    try:
        callback = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise SettingsError(
            f"ANOMALY_DAG_{kind}_CALLBACK is {dotted_path!r}: {error};"
            " write package.module.function, importable where DAGs are parsed"
        ) from None
    if not callable(callback):
        raise SettingsError(f"ANOMALY_DAG_{kind}_CALLBACK is {dotted_path!r}: not a function")
    return callback  # type: ignore[no-any-return]
