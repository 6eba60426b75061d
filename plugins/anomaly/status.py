"""The state of a deployment at a moment: what needs somebody, machines, model, last runs."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from anomaly.clocks import advice_on_skipped
from anomaly.differences import compare
from anomaly.episodes import time_zone
from anomaly.errors import NoModelError
from anomaly.postgres.database import SCORER, Database, Transaction
from anomaly.postgres.readings import WindowReader
from anomaly.postgres.source import MeterSource
from anomaly.schema import QUALITY_NAMES, Quality
from anomaly.settings import Settings, StatusSeverity
from anomaly.windows import Window, floor_to_interval

RATED = timedelta(weeks=4)
"""How far back alerts are counted."""
_LEAST_RATED = timedelta(days=1)  # judged: from less no rate a week can be told


@dataclass(frozen=True)
class MachineStatus:
    """One machine; ``state`` is its newest quality, or ``silent``, ``retired`` or ``new``.

    While an incident of it is open that is its ``state``, e.g. ``open warning``, unless its
    meter is at fault or it is silent, retired or new.

    Attributes
    ----------
    alerts_a_week : float or None
        Incidents of the machine itself that began in the last four weeks, but for those
        silenced throughout, a week from the first verdict of that time to the last; None
        where that is less than a day.
    alert_budget : float
        How many are bearable.
    precision : float or None
        Share of those that people called real, among those that they called real or
        false alarms; None where they said nothing.
    """

    machine_id: int
    name: str
    state: str
    newest_verdict: datetime | None
    alerts_a_week: float | None
    alert_budget: float
    precision: float | None


@dataclass(frozen=True)
class Status:
    """What `anomaly status` tells.

    Attributes
    ----------
    as_of : datetime
        The moment the status speaks of.
    newest_reading : datetime or None
        Start of the newest interval with a finite reading, up to `as_of`.
    stale : bool
        The newest reading ended more than ``stale_after_hours`` before `as_of`, and more
        than two intervals.
    watermark : datetime or None
        End of what scheduled scoring has covered.
    lag_minutes : float or None
        How far the watermark is behind `as_of`.
    unscored : int or None
        Readings of the last ``reconcile_days`` without a verdict, but for the interval
        that has just ended; None without a model.
    outdated : int or None
        Verdicts there on a reading that has changed.
    without_reading : int or None
        Verdicts there whose reading is gone.
    future_readings : int
        Rows of the meter table that are not due yet.
    skipped_times : int
        Readings at a local time that the clock skips; 0 where times have a zone.
    skipped_advice : str
        The first of them, and what to set; empty where there is none.
    late_verdicts, repaired_verdicts : int
        Of the last 24 hours.
    incidents : list of dict
        Those that are open, the worst first, then the newest.
    exit_severity : StatusSeverity
        From which severity on an open incident is a problem.
    """

    as_of: datetime
    newest_reading: datetime | None
    stale: bool
    watermark: datetime | None
    lag_minutes: float | None
    unscored: int | None
    outdated: int | None
    without_reading: int | None
    future_readings: int
    skipped_times: int
    skipped_advice: str
    late_verdicts: int
    repaired_verdicts: int
    model_version: int | None
    model_trained_to: datetime | None
    machines: list[MachineStatus]
    runs: list[dict[str, Any]]
    incidents: list[dict[str, Any]]
    exit_severity: StatusSeverity

    @property
    def problems(self) -> list[str]:
        """What a monitor should wake somebody for, in words."""
        found = [_told(incident) for incident in self.incidents if self._wakes(incident)]
        if self.model_version is None:
            found.append("no model is in force: run `anomaly train --promote`")
        if self.newest_reading is None:
            found.append("the meter table has no readings: load some, or check ANOMALY_SOURCE_*")
        elif self.stale:
            found.append(f"the newest reading is of {self.newest_reading:%Y-%m-%d %H:%M} UTC")
        if self.skipped_times:
            found.append(
                f"{self.skipped_times} readings have a local time that the clock skips,"
                f" {self.skipped_advice}"
            )
        if self.unscored or self.outdated:
            found.append(
                f"{self.unscored} readings without a verdict and {self.outdated} verdicts out of"
                " date: run `anomaly reconcile`"
            )
        if self.without_reading:
            found.append(
                f"{self.without_reading} verdicts have lost their reading: the next"
                " reconciliation retracts them; if they are more than it may, and the deletion"
                " was meant, run `anomaly reconcile --allow-retract`"
            )
        return found

    def _wakes(self, incident: Mapping[str, Any]) -> bool:
        order = list(StatusSeverity)
        return order.index(StatusSeverity(incident["severity"])) >= order.index(self.exit_severity)

    def as_dict(self) -> dict[str, Any]:
        """All of it but for what is a setting, with the problems."""
        facts = asdict(self) | {"problems": self.problems}
        del facts["exit_severity"]
        return facts


def _told(incident: Mapping[str, Any]) -> str:
    local = incident["started_at"].astimezone(time_zone(incident["time_zone"]))
    return (
        f"incident {incident['incident_id']} of {incident['machine']} is open"
        f" ({incident['severity']}, since {local:%Y-%m-%d %H:%M %Z}): {incident['reason']}"
    )


def status(database: Database, settings: Settings, as_of: datetime) -> Status:
    """Take stock of a deployment at `as_of`."""
    source = MeterSource(settings)
    with database.transaction(SCORER, read_only=True) as transaction:
        shape = source.describe(transaction)
        newest = source.previous_reading(transaction, shape, as_of)
        future = source.count_from(transaction, shape, as_of)
        skipped = source.skipped_times(transaction, shape, as_of)
        watermark = transaction.row("live_coverage")["watermark"]
        late = transaction.row("status_late", since=as_of - timedelta(hours=24))
        version = transaction.rows("current_version")
        incidents = [dict(row) for row in transaction.rows("open_incidents")]
        machines = _machines(transaction, settings, as_of, incidents)
        runs = [dict(row) for row in transaction.rows("status_runs")]
    unscored, outdated, without_reading = _differences(database, settings, as_of)
    return Status(
        as_of=as_of,
        newest_reading=newest,
        stale=is_stale(newest, settings, as_of),
        watermark=watermark,
        lag_minutes=(as_of - watermark) / timedelta(minutes=1) if watermark else None,
        unscored=unscored,
        outdated=outdated,
        without_reading=without_reading,
        future_readings=future,
        skipped_times=skipped[0] if skipped else 0,
        skipped_advice=_advice(skipped[1], settings) if skipped else "",
        late_verdicts=late["late_verdicts"],
        repaired_verdicts=late["repaired_verdicts"],
        model_version=version[0]["version"] if version else None,
        model_trained_to=version[0]["trained_to"] if version else None,
        machines=machines,
        runs=runs,
        incidents=incidents,
        exit_severity=settings.status_exit_severity,
    )


def _advice(local: datetime, settings: Settings) -> str:
    assert settings.zone is not None
    return f"the first at {local:%Y-%m-%d %H:%M}: {advice_on_skipped(settings.zone, local)}"


def newest_reading(database: Database, settings: Settings, as_of: datetime) -> datetime | None:
    """Start of the newest interval with a finite reading before `as_of`, or None."""
    source = MeterSource(settings)
    with database.transaction(SCORER, read_only=True) as transaction:
        return source.previous_reading(transaction, source.describe(transaction), as_of)


def is_stale(newest: datetime | None, settings: Settings, as_of: datetime) -> bool:
    """Whether the newest reading ended longer ago than ``settings.stale_after`` allows."""
    if not settings.stale_after_hours:
        return False
    return newest is None or as_of - (newest + settings.interval) > settings.stale_after


def _differences(
    database: Database, settings: Settings, as_of: datetime
) -> tuple[int, int, int] | tuple[None, None, None]:
    # The interval that has just ended is the running tick's work.
    end = floor_to_interval(as_of, settings.interval) - settings.interval
    try:
        found = compare(
            database, WindowReader(settings), Window(end - settings.reconcile_horizon, end)
        )
    except NoModelError:
        return None, None, None
    return len(found.missing), len(found.changed), len(found.deleted)


def _machines(
    transaction: Transaction,
    settings: Settings,
    as_of: datetime,
    incidents: Sequence[Mapping[str, Any]],
) -> list[MachineStatus]:
    worst = {row["machine_id"]: row["severity"] for row in reversed(incidents)}
    rates = {
        row["machine_id"]: row
        for row in transaction.rows("alert_rates", start=as_of - RATED, end=as_of)
    }
    return [
        MachineStatus(
            row["machine_id"],
            row["name"],
            _with_incident(
                _state(row["newest_verdict"], row["quality"], row["active_to"], settings, as_of),
                worst.get(row["machine_id"]),
            ),
            row["newest_verdict"],
            alerts_a_week=_a_week(settings.interval, **rates[row["machine_id"]]),
            alert_budget=rates[row["machine_id"]]["alert_budget"] or settings.alert_budget,
            precision=_precision(**rates[row["machine_id"]]),
        )
        for row in transaction.rows("status_results")
    ]


def _a_week(
    interval: timedelta,
    *,
    alerts: int,
    first_at: datetime | None,
    last_at: datetime | None,
    **_: object,
) -> float | None:
    judged = last_at - first_at + interval if first_at and last_at else timedelta(0)
    return alerts / (judged / timedelta(weeks=1)) if judged >= _LEAST_RATED else None


def _precision(*, real_alerts: int, false_alarms: int, **_: object) -> float | None:
    said = real_alerts + false_alarms
    return real_alerts / said if said else None


def _with_incident(state: str, severity: str | None) -> str:
    sound = state in QUALITY_NAMES[: Quality.STUCK]
    return f"open {severity}" if severity and sound else state


def _state(
    newest: datetime | None,
    quality: str | None,
    active_to: datetime | None,
    settings: Settings,
    as_of: datetime,
) -> str:
    if active_to is not None and active_to <= as_of:
        return "retired"
    if newest is None or quality is None:
        return "new"
    if as_of - newest > settings.max_gap:
        return "retired"
    return "silent" if is_stale(newest, settings, as_of) else quality
