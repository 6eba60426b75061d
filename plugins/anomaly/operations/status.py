"""The state of a deployment: problems, open incidents, machines, model and last runs."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from anomaly.database.alerts import undelivered
from anomaly.database.backfills import stopped_backfills
from anomaly.database.connection import SCORER, Database, Transaction
from anomaly.database.incidents import alert_rates, open_incidents
from anomaly.database.meter_table import MeterSource
from anomaly.database.model_in_force import champion
from anomaly.database.model_versions import refused_in_a_row
from anomaly.database.results import newest_per_machine
from anomaly.database.scoring_runs import last_runs, late_and_repaired, live_coverage
from anomaly.errors import NoModelError
from anomaly.readings.local_clocks import advice_on_skipped, zone_or_utc
from anomaly.readings.quality import QUALITY_NAMES, Quality
from anomaly.scoring.chunks import longest_chunk
from anomaly.scoring.mismatches import count_mismatches
from anomaly.scoring.window_reader import WindowReader
from anomaly.settings import (
    GateSettings,
    MeterSettings,
    MeterTableSettings,
    ScoringSettings,
    Settings,
    StatusSeverity,
)
from anomaly.windows import Window, floor_to_interval
from anomaly.wording import counted

RATED = timedelta(weeks=4)
"""Time before ``as_of`` in which alerts are counted. Chosen."""
# Chosen: less judged time than this is too little for a rate of alerts per week.
_LEAST_RATED = timedelta(days=1)


@dataclass(frozen=True)
class MachineStatus:
    """One machine and its alerts.

    Attributes
    ----------
    state : str
        The quality of its newest verdict, or ``silent``, ``retired`` or ``new``. While it has
        an open incident: ``open`` and the severity, for example ``open warning``; but a meter
        fault, ``silent``, ``retired`` and ``new`` take precedence.
    alerts_a_week : float or None
        Incidents of the machine itself (not of its meter) that began in the last four weeks,
        per week between the first and the last verdict of that time. Incidents that were
        silenced all the time do not count. None if that time is less than a day.
    alert_budget : float
        How many alerts per week are acceptable.
    precision : float or None
        Of the alerts that people called real or false alarms, the share that they called real;
        None if they said nothing.
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
    """What `anomaly status` reports.

    Attributes
    ----------
    as_of : datetime
        The moment of the status.
    newest_reading : datetime or None
        Start of the newest interval with a finite reading, up to `as_of`.
    stale : bool
        The newest reading ended more than ``stale_after_hours``, and more than two intervals,
        before `as_of`.
    watermark : datetime or None
        End of the time that live runs have covered.
    lag_minutes : float or None
        How far the watermark is behind `as_of`.
    unscored : int or None
        Readings of the last ``reconcile_days`` without a verdict, except in the interval that
        has just ended; None without a model.
    outdated : int or None
        Verdicts of that time on a reading that has changed.
    without_reading : int or None
        Verdicts of that time whose reading was deleted.
    future_readings : int
        Rows of the meter table that are not due yet.
    skipped_times : int
        Readings at a local time that the clock skips; 0 if times have a zone.
    skipped_advice : str
        The first of these times, and what to set; empty if there is none.
    late_verdicts, repaired_verdicts : int
        Counts of the last 24 hours.
    incidents : list of dict
        Open incidents, the worst first, then the newest.
    refused_in_a_row : int
        Newest versions that the gate refused, one after another.
    newest_refused : int or None
        The newest of them.
    most_refusals : int
        So many of them, and a person must decide.
    oldest_training : timedelta
        One of them is enough, if the training in force ended so long before the newest reading.
    undelivered : dict of str to int
        Alerts of the last week that were given up, by their route.
    exit_severity : StatusSeverity
        Lowest severity at which an open incident is a problem.
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
    refused_in_a_row: int
    newest_refused: int | None
    most_refusals: int
    oldest_training: timedelta
    machines: list[MachineStatus]
    runs: list[dict[str, Any]]
    incidents: list[dict[str, Any]]
    stopped_backfills: list[int]
    undelivered: dict[str, int]
    exit_severity: StatusSeverity

    @property
    def problems(self) -> list[str]:
        """One sentence per problem that needs somebody now."""
        found = [
            _incident_sentence(incident)
            for incident in self.incidents
            if self._needs_somebody(incident)
        ]
        if self.model_version is None:
            found.append("no model is in force: run `anomaly train --promote`")
        if refused := self._refused():
            found.append(
                f"{refused}, so version {self.model_version} still judges: decide in Airflow, under"
                " Required Actions of `retrain_model`, or look at"
                f" `anomaly models show {self.newest_refused}` and put it in force with"
                f" `anomaly models promote {self.newest_refused}`"
            )
        if self.newest_reading is None:
            found.append("the meter table has no readings: load some, or check ANOMALY_SOURCE_*")
        elif self.stale:
            found.append(f"the newest reading is from {self.newest_reading:%Y-%m-%d %H:%M} UTC")
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
        found += [
            f"backfill {number} has put a model version in force and has not scored all of its"
            f" range: clear its run in Airflow, or run `anomaly backfill --resume {number}`"
            for number in self.stopped_backfills
        ]
        found += [
            f"{counted(number, 'alert')} could not be delivered by the route {route}: try it by"
            " `anomaly alerts test`, and see `anomaly alerts list --failed`"
            for route, number in self.undelivered.items()
        ]
        if self.without_reading:
            found.append(
                f"{self.without_reading} verdicts have lost their reading: the next"
                " reconciliation retracts them; if they are more than it may, and the deletion"
                " was meant, run `anomaly reconcile --allow-retract`"
            )
        return found

    def _needs_somebody(self, incident: Mapping[str, Any]) -> bool:
        order = list(StatusSeverity)
        return order.index(StatusSeverity(incident["severity"])) >= order.index(self.exit_severity)

    def _refused(self) -> str:
        return _why_a_person_decides(
            self.refused_in_a_row,
            self.newest_refused,
            self.model_version,
            self.model_trained_to,
            self.newest_reading,
            self.most_refusals,
            self.oldest_training,
        )

    def as_dict(self) -> dict[str, Any]:
        """All fields except the settings among them, and the problems."""
        facts = asdict(self) | {"problems": self.problems}
        del facts["exit_severity"], facts["most_refusals"], facts["oldest_training"]
        return facts


def refusal(transaction: Transaction, gate: GateSettings, newest: datetime | None) -> str:
    """Why a person must decide on a refused version; empty: nobody must.

    Parameters
    ----------
    newest : datetime or None
        The newest reading.
    """
    in_force = champion(transaction)
    refused, version = refused_in_a_row(transaction)
    return _why_a_person_decides(
        refused,
        version,
        in_force.version if in_force else None,
        in_force.trained_to if in_force else None,
        newest,
        gate.gate_refusals,
        gate.champion_age,
    )


def _why_a_person_decides(
    in_a_row: int,
    newest_refused: int | None,
    in_force: int | None,
    trained_to: datetime | None,
    newest_reading: datetime | None,
    most_refusals: int,
    oldest_training: timedelta,
) -> str:
    """Why, as a refusal says it; empty: nobody."""
    if in_a_row >= most_refusals:
        return f"the gate refused {in_a_row} versions in a row"
    if not (in_a_row and trained_to and newest_reading):
        return ""
    age = newest_reading - trained_to
    if age <= oldest_training:
        return ""
    return (
        f"the gate refused version {newest_refused}, and the training of version {in_force} ended"
        f" {age / timedelta(weeks=1):.1f} weeks before the newest reading"
    )


STOPPED = timedelta(hours=1)
"""A backfill that has finished nothing for so long is not running. Chosen."""


def _incident_sentence(incident: Mapping[str, Any]) -> str:
    local = incident["started_at"].astimezone(zone_or_utc(incident["time_zone"]))
    return (
        f"incident {incident['incident_id']} of {incident['machine']} is open"
        f" ({incident['severity']}, since {local:%Y-%m-%d %H:%M %Z}): {incident['reason']}"
    )


def status(database: Database, settings: Settings, as_of: datetime) -> Status:
    """The status of a deployment at `as_of`."""
    source = MeterSource(settings.meter_table, settings.meter)
    with database.transaction(SCORER, read_only=True) as transaction:
        shape = source.describe(transaction)
        newest = source.previous_reading(transaction, shape, as_of)
        future = source.count_from(transaction, shape, as_of)
        skipped = source.skipped_times(transaction, shape, as_of)
        watermark = live_coverage(transaction).watermark
        late = late_and_repaired(transaction, as_of - timedelta(hours=24))
        in_force = champion(transaction)
        refused, newest_refused = refused_in_a_row(transaction)
        incidents = [dict(row) for row in open_incidents(transaction)]
        machines = _machine_statuses(transaction, settings, as_of, incidents)
        runs = [dict(row) for row in last_runs(transaction)]
        stopped = stopped_backfills(transaction, as_of - STOPPED)
        lost = undelivered(transaction, as_of - timedelta(weeks=1))
    horizon = settings.scoring.reconcile_horizon
    unscored, outdated, without_reading = mismatch_counts(database, settings, as_of, horizon)
    return Status(
        as_of=as_of,
        newest_reading=newest,
        stale=is_stale(newest, settings.meter, settings.scoring, as_of),
        watermark=watermark,
        lag_minutes=(as_of - watermark) / timedelta(minutes=1) if watermark else None,
        unscored=unscored,
        outdated=outdated,
        without_reading=without_reading,
        future_readings=future,
        skipped_times=skipped[0] if skipped else 0,
        skipped_advice=_skipped_advice(skipped[1], settings.meter) if skipped else "",
        late_verdicts=late["late_verdicts"],
        repaired_verdicts=late["repaired_verdicts"],
        model_version=in_force.version if in_force else None,
        model_trained_to=in_force.trained_to if in_force else None,
        refused_in_a_row=refused,
        newest_refused=newest_refused,
        most_refusals=settings.gate.gate_refusals,
        oldest_training=settings.gate.champion_age,
        machines=machines,
        runs=runs,
        incidents=incidents,
        stopped_backfills=stopped,
        undelivered={row["route"]: row["messages"] for row in lost},
        exit_severity=settings.incidents.status_exit_severity,
    )


def _skipped_advice(local: datetime, meter: MeterSettings) -> str:
    assert meter.zone is not None
    return f"the first at {local:%Y-%m-%d %H:%M}: {advice_on_skipped(meter.zone, local)}"


def newest_reading(
    database: Database, meter_table: MeterTableSettings, meter: MeterSettings, as_of: datetime
) -> datetime | None:
    """Start of the newest interval with a finite reading before `as_of`, or None."""
    source = MeterSource(meter_table, meter)
    with database.transaction(SCORER, read_only=True) as transaction:
        return source.previous_reading(transaction, source.describe(transaction), as_of)


def is_stale(
    newest: datetime | None, meter: MeterSettings, scoring: ScoringSettings, as_of: datetime
) -> bool:
    """Whether the newest reading ended longer ago than `ScoringSettings.stale_after` allows."""
    if not scoring.stale_after_hours:
        return False
    return newest is None or as_of - (newest + meter.interval) > scoring.stale_after(meter.interval)


def mismatch_counts(
    database: Database, settings: Settings, as_of: datetime, horizon: timedelta
) -> tuple[int, int, int] | tuple[None, None, None]:
    """Readings without a verdict, verdicts out of date, and verdicts without a reading.

    Parameters
    ----------
    horizon : timedelta
        How far back from `as_of` is compared. `ScoringSettings.reconcile_horizon` is where
        `anomaly reconcile` begins by default, so what is counted is repaired there.

    Returns
    -------
    tuple
        Three counts; three times None without a model.
    """
    # The interval that has just ended is left out: its tick may still be running.
    end = floor_to_interval(as_of, settings.meter.interval) - settings.meter.interval
    try:
        return count_mismatches(
            database,
            WindowReader(settings.meter_table, settings.meter),
            Window(as_of - horizon, end),
            longest_chunk(database, settings.scoring, settings.meter.interval),
        )
    except NoModelError:
        return None, None, None


def _machine_statuses(
    transaction: Transaction,
    settings: Settings,
    as_of: datetime,
    incidents: Sequence[Mapping[str, Any]],
) -> list[MachineStatus]:
    # Incidents come with the worst first, so in reverse the worst one of a machine wins.
    worst = {row["machine_id"]: row["severity"] for row in reversed(incidents)}
    rates = alert_rates(transaction, as_of - RATED, as_of)
    return [
        MachineStatus(
            row["machine_id"],
            row["name"],
            _with_incident(
                _machine_state(
                    row["newest_verdict"],
                    row["quality"],
                    row["active_to"],
                    settings.meter,
                    settings.scoring,
                    as_of,
                ),
                worst.get(row["machine_id"]),
            ),
            row["newest_verdict"],
            alerts_a_week=alerts_per_week(settings.meter.interval, **rates[row["machine_id"]]),
            alert_budget=rates[row["machine_id"]]["alert_budget"] or settings.training.alert_budget,
            precision=_precision(**rates[row["machine_id"]]),
        )
        for row in newest_per_machine(transaction)
    ]


def alerts_per_week(
    interval: timedelta,
    *,
    alerts: int,
    first_at: datetime | None,
    last_at: datetime | None,
    **_: object,
) -> float | None:
    """Alerts per judged week, of a row of `alert_rates`; None where too little was judged."""
    judged = last_at - first_at + interval if first_at and last_at else timedelta(0)
    return alerts / (judged / timedelta(weeks=1)) if judged >= _LEAST_RATED else None


def _precision(*, real_alerts: int, false_alarms: int, **_: object) -> float | None:
    said = real_alerts + false_alarms
    return real_alerts / said if said else None


def _with_incident(state: str, severity: str | None) -> str:
    sound = state in QUALITY_NAMES[: Quality.STUCK]
    return f"open {severity}" if severity and sound else state


def _machine_state(
    newest: datetime | None,
    quality: str | None,
    active_to: datetime | None,
    meter: MeterSettings,
    scoring: ScoringSettings,
    as_of: datetime,
) -> str:
    # The order matters: a machine that was retired on purpose is never called silent.
    if active_to is not None and active_to <= as_of:
        return "retired"
    if newest is None or quality is None:
        return "new"
    if as_of - newest > meter.max_gap:
        return "retired"
    return "silent" if is_stale(newest, meter, scoring, as_of) else quality
