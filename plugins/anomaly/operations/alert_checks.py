"""What of the pipeline and its models people are to be told; it is found by looking at them."""

from datetime import datetime, timedelta

from anomaly.alerts.events import OVER, Event
from anomaly.alerts.sending import Sent, send_alerts
from anomaly.database import alerts as outbox
from anomaly.database.connection import SCORER, Database, Transaction
from anomaly.database.incidents import alert_rates
from anomaly.database.model_versions import refused_in_a_row
from anomaly.database.scoring_runs import last_live_run
from anomaly.operations.status import is_stale, newest_reading, refusal
from anomaly.settings import AlertKind, AlertSeverity, Promotion, Settings

FRESHNESS = "freshness"
"""Name of the check that `check_freshness` notes."""
WEEK = timedelta(weeks=1)


def note_freshness_check(database: Database, at: datetime) -> None:
    """Note that the freshness of the meters has been looked at."""
    with database.transaction(SCORER) as transaction:
        outbox.note_check(transaction, FRESHNESS, at)


def tell_people(database: Database, settings: Settings, now: datetime) -> tuple[Sent, int]:
    """Send what is due, look at the pipeline, and send what was found; return what was done.

    What waits is sent first: it does not depend on the meter table, as the look does.
    """
    done = send_alerts(database, settings, now)
    found = check_pipeline(database, settings, now)
    return (done + send_alerts(database, settings, now) if found else done), found


def check_pipeline(database: Database, settings: Settings, now: datetime) -> int:
    """Write the events of the pipeline and its models; return how many are new.

    Each is told once while it lasts: its key holds the reading, the run or the version that it is
    about.
    """
    newest = newest_reading(database, settings.meter_table, settings.meter, now)
    with database.transaction(SCORER) as transaction:
        return (
            _tell(transaction, "stale", _stale(newest, settings, now), now)
            + _tell(transaction, "unscored", _unscored(transaction, settings, now), now)
            + _tell(transaction, "unchecked", _unchecked(transaction, settings, now), now)
            + _tell_once(transaction, "refused", _refused(transaction, settings, newest), now)
            + _tell_once(transaction, "over_budget", _over_budget(transaction, settings, now), now)
        )


Found = tuple[str, str] | None
"""What tells this case from another, and what is said of it; None: there is nothing to say."""


def _tell(transaction: Transaction, event: str, found: Found, now: datetime) -> int:
    """Write that something of the pipeline is wrong; or that it is over, where that was written."""
    about = outbox.unended(transaction, event)
    if found is not None:  # one case at a time, however the newest reading creeps on
        return _tell_once(transaction, event, found, now) if about is None else 0
    if about is None:
        return 0
    return _write(
        transaction,
        about,
        event + OVER,
        AlertKind.PIPELINE,
        AlertSeverity.NOTICE,
        now,
        _OVER[event],
    )


def _tell_once(transaction: Transaction, event: str, found: Found, now: datetime) -> int:
    if found is None:
        return 0
    case, says = found
    kind, severity = _KINDS[event]
    return _write(transaction, f"{event}:{case}", event, kind, severity, now, says)


def _write(
    transaction: Transaction,
    about: str,
    event: str,
    kind: AlertKind,
    severity: AlertSeverity,
    now: datetime,
    says: str,
) -> int:
    key = about + OVER if event.endswith(OVER) else about
    one = Event(key, about, event, kind.value, severity.value, now, says=says)
    return outbox.add_events(transaction, [vars(one)])


def tell_question(database: Database, settings: Settings, version: int, now: datetime) -> int:
    """Write that a version which passed the gate waits for a person; return 1, or 0 if it was."""
    dags = settings.dags.dag_prefix
    answer = f"answer the task `ask` of {dags}retrain_model, or "
    says = (
        f"version {version} passed the gate, and a person must decide on it;"
        f" {answer if settings.gate.promotion is Promotion.APPROVE else ''}"
        f"run `anomaly models promote {version}`"
    )
    with database.transaction(SCORER) as transaction:
        return _tell_once(transaction, "asked", (f"{version}", says), now)


_KINDS = {
    "asked": (AlertKind.MODEL, AlertSeverity.NOTICE),
    "stale": (AlertKind.PIPELINE, AlertSeverity.CRITICAL),
    "unscored": (AlertKind.PIPELINE, AlertSeverity.CRITICAL),
    "unchecked": (AlertKind.PIPELINE, AlertSeverity.WARNING),
    "refused": (AlertKind.MODEL, AlertSeverity.WARNING),
    "over_budget": (AlertKind.MODEL, AlertSeverity.NOTICE),
}
_OVER = {
    "stale": "meters deliver readings again",
    "unscored": "readings are scored again",
    "unchecked": "the freshness of the meters is checked again",
}


def _stale(newest: datetime | None, settings: Settings, now: datetime) -> Found:
    if not is_stale(newest, settings.meter, settings.scoring, now):
        return None
    if newest is None:
        return (
            "empty",
            f"no meter has ever delivered a reading; look at what fills"
            f" {settings.meter_table.source_name}",
        )
    return (
        newest.isoformat(),
        f"no meter has delivered a reading since {newest:%Y-%m-%d %H:%M} UTC; look at what fills"
        f" {settings.meter_table.source_name}",
    )


def _unscored(transaction: Transaction, settings: Settings, now: datetime) -> Found:
    last = last_live_run(transaction)
    if last is None or now - last <= settings.alerts.unscored:
        return None
    return (
        last.isoformat(),
        f"nothing has been scored since {last:%Y-%m-%d %H:%M} UTC; look at the DAG"
        f" {settings.dags.dag_prefix}score_readings in Airflow",
    )


def _unchecked(transaction: Transaction, settings: Settings, now: datetime) -> Found:
    last = outbox.last_check(transaction, FRESHNESS)
    if last is None or now - last <= settings.alerts.unscored:
        return None
    return (
        last.isoformat(),
        f"whether meters deliver was last checked at {last:%Y-%m-%d %H:%M} UTC; look at the task"
        f" check_freshness of {settings.dags.dag_prefix}score_readings",
    )


def _refused(transaction: Transaction, settings: Settings, newest: datetime | None) -> Found:
    in_a_row, version = refused_in_a_row(transaction)
    why = refusal(transaction, settings.gate, newest)
    if not why or not in_a_row:
        return None
    return (
        f"{version}",
        f"a person must decide on a model; {why}: `anomaly models show {version}`, and `anomaly"
        f" models promote {version}` if it is right",
    )


def _over_budget(transaction: Transaction, settings: Settings, now: datetime) -> Found:
    rates = alert_rates(transaction, now - WEEK, now)
    found, expected = 0, 0.0
    for rate in rates.values():
        if rate["first_at"] is None or rate["last_at"] is None:
            continue
        judged = rate["last_at"] - rate["first_at"] + settings.meter.interval
        found += rate["alerts"]
        expected += (rate["alert_budget"] or settings.training.alert_budget) * (judged / WEEK)
    if found <= max(expected, 1.0) * settings.alerts.alert_over_budget:
        return None
    year, week, _ = now.isocalendar()
    return (
        f"{year}-W{week:02}",
        f"{found} alerts in seven days, and {expected:.0f} are bearable; label the false ones and"
        " train again, or raise ANOMALY_ALERT_BUDGET",
    )
