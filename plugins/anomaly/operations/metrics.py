"""Metrics of a deployment for Prometheus, read from its database whenever somebody asks.

Nothing is counted in a process: whatever has died or was started again, the figures are those of
the ledger, the verdicts and the version map. `METRICS` names each of them. Times are given as Unix
times, so that an age goes on growing when nobody reads the metrics any more.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector, CollectorRegistry

from anomaly import __version__
from anomaly.database.backfills import backfill_progress, stopped_backfills
from anomaly.database.connection import SCORER, Database, Transaction
from anomaly.database.explained_errors import EXPLAINED, explained
from anomaly.database.incidents import alert_rates, count_unresolved
from anomaly.database.machines import count_machines
from anomaly.database.migrations import missing_migrations
from anomaly.database.model_in_force import champion
from anomaly.database.model_versions import refused_in_a_row
from anomaly.database.results import newest_per_machine
from anomaly.database.scoring_runs import live_coverage, live_since, totals
from anomaly.errors import AnomalyError
from anomaly.operations.status import (
    RATED,
    STOPPED,
    alerts_per_week,
    mismatch_counts,
    newest_reading,
)
from anomaly.settings import Settings
from anomaly.wording import printable, safe_line

COMPARED = 50_000
"""Newest readings that are compared with their verdicts. Chosen: that takes about a second."""
RECENT = timedelta(hours=24)
"""Time of which the share of abnormal verdicts is told, and in which a backfill is under way."""
RATED_MACHINES = 10_000
"""In larger fleets alerts are not counted: each thousand machines take 0.07 s (measured on 35
million verdicts, where all the rest takes 0.4 s)."""

_SEVERITIES = ("notice", "warning", "critical")
_STATES = ("open", "acknowledged")


@dataclass(frozen=True)
class Metric:
    """One metric: its name, what it means, and its labels."""

    name: str
    meaning: str
    labels: tuple[str, ...] = ()

    @property
    def is_counter(self) -> bool:
        """Whether it only ever grows; else it is a gauge."""
        return self.name.endswith("_total")


METRICS = (
    # The deployment
    Metric("anomaly_up", "1: the database answers and has every migration. 0: look at the others."),
    Metric(
        "anomaly_build_info", "Always 1; the label is the version of the product.", ("version",)
    ),
    Metric("anomaly_collected_timestamp_seconds", "When these metrics were read."),
    Metric("anomaly_migrations_missing", "Migrations that the database lacks: `anomaly migrate`."),
    # Readings
    Metric("anomaly_source_up", "1: the meter table can be read."),
    Metric("anomaly_interval_seconds", "How often meters are read: ANOMALY_INTERVAL_MINUTES."),
    Metric(
        "anomaly_newest_reading_timestamp_seconds",
        "End of the newest interval with a finite reading; missing while there is none.",
    ),
    Metric(
        "anomaly_stale_after_seconds",
        "Age of the newest reading from which the source is at fault; +Inf: never.",
    ),
    # Scoring
    Metric(
        "anomaly_watermark_timestamp_seconds",
        "End of the time that scheduled runs have scored; missing before the first.",
    ),
    Metric(
        "anomaly_last_publication_timestamp_seconds",
        "When a window was last published, per origin; missing before the first.",
        ("origin",),
    ),
    Metric(
        "anomaly_readings_scored_total",
        "Readings that got their first verdict: live on schedule, late after it, or by a backfill.",
        ("origin",),
    ),
    Metric(
        "anomaly_verdicts_repaired_total",
        "Verdicts that were replaced, because a reading, a model or what precedes it changed.",
        ("origin",),
    ),
    Metric(
        "anomaly_verdicts_retracted_total",
        "Verdicts that were removed, because their reading was deleted.",
        ("origin",),
    ),
    Metric(
        "anomaly_compared_seconds",
        f"How far back the next three look: as far as `anomaly reconcile` by default, or the newest"
        f" {COMPARED:,} readings if those are fewer. The interval that has just ended is left out.",
    ),
    Metric("anomaly_unscored_readings", "Readings of that time without a verdict."),
    Metric("anomaly_outdated_verdicts", "Verdicts of that time on what is no longer so."),
    Metric("anomaly_verdicts_without_reading", "Verdicts of that time whose reading was deleted."),
    # What was found
    Metric(
        "anomaly_abnormal_verdicts_ratio",
        "Share of abnormal verdicts in what scheduled runs have judged in the last 24 hours.",
    ),
    Metric(
        "anomaly_incidents",
        "Incidents that are not resolved. open: nobody has acknowledged it yet.",
        ("severity", "state"),
    ),
    Metric(
        "anomaly_alerts_per_week",
        "Incidents of machines (not of meters) that began in the last four weeks, per week, summed"
        f" over the machines. Missing above {RATED_MACHINES:,} machines.",
    ),
    Metric(
        "anomaly_alert_budget_per_week",
        "Incidents per week that are bearable, summed over the same machines.",
    ),
    # Models
    Metric("anomaly_model_version", "The model version that judges new readings; 0: none does."),
    Metric("anomaly_model_trained_to_timestamp_seconds", "End of the readings it was trained on."),
    Metric(
        "anomaly_model_old_after_seconds",
        "Age of a training from which it is old: ANOMALY_GATE_CHAMPION_WEEKS.",
    ),
    Metric("anomaly_models_refused", "Newest versions that the gate refused, one after another."),
    Metric(
        "anomaly_models_refused_limit",
        "So many of them, and a person must decide: ANOMALY_GATE_REFUSALS.",
    ),
    # Backfills
    Metric(
        "anomaly_backfill_progress_ratio",
        "Share that is done of a backfill that is not finished and did something in the last 24"
        " hours, or has put a version in force.",
        ("backfill",),
    ),
    Metric(
        "anomaly_backfill_progress_timestamp_seconds",
        "When that backfill last finished something.",
        ("backfill",),
    ),
    Metric(
        "anomaly_backfills_stopped",
        "Backfills that put a model version in force, are not finished, and have done nothing for"
        " an hour.",
    ),
    # Machines
    Metric("anomaly_machines", "Machines that the deployment knows."),
    Metric(
        "anomaly_machine_newest_verdict_timestamp_seconds",
        "Start of the newest interval of the machine with a verdict.",
        ("machine_id", "machine"),
    ),
    Metric(
        "anomaly_machine_alerts_per_week",
        "As anomaly_alerts_per_week, of one machine.",
        ("machine_id", "machine"),
    ),
    Metric(
        "anomaly_machine_alert_budget_per_week",
        "As anomaly_alert_budget_per_week, of one machine.",
        ("machine_id", "machine"),
    ),
)
"""Every metric, in the order in which they are given."""

_BY_NAME = {metric.name: metric for metric in METRICS}


@dataclass
class Readout:
    """Metrics as they were at one moment.

    Attributes
    ----------
    values : mapping
        By name of the metric: values by their labels' values. A metric without a value is missing.
    errors : list of str
        Why metrics are missing, one line each.
    """

    values: dict[str, dict[tuple[str, ...], float]] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)

    def put(self, name: str, value: float | datetime | timedelta | None, *labels: object) -> None:
        """Give a metric of `METRICS` a value; None: it has none. Labels are printable."""
        metric = _BY_NAME[name]
        assert len(labels) == len(metric.labels), name
        if value is not None:
            at = self.values.setdefault(name, {})
            at[tuple(printable(str(label)) for label in labels)] = _number(value)

    def samples(self) -> Iterator[tuple[Metric, Mapping[str, str], float]]:
        """Each value with its metric and labels, in the order of `METRICS`."""
        for metric in METRICS:
            for labels, value in self.values.get(metric.name, {}).items():
                yield metric, dict(zip(metric.labels, labels, strict=True)), value

    @property
    def is_up(self) -> bool:
        """Whether the database answered and has every migration."""
        return self.values["anomaly_up"] == {(): 1.0}


class ReadoutCollector(Collector):
    """Gives what a function reads to prometheus_client, whenever that asks."""

    def __init__(self, read: Callable[[], Readout]) -> None:
        self._read = read

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        """Each metric with its values."""
        readout = self._read()
        for metric in METRICS:
            if found := readout.values.get(metric.name):
                kind = CounterMetricFamily if metric.is_counter else GaugeMetricFamily
                family = kind(metric.name, metric.meaning, labels=metric.labels)
                for labels, value in found.items():
                    family.add_metric(labels, value)
                yield family


def registry_of(read: Callable[[], Readout]) -> CollectorRegistry:
    """A registry of prometheus_client, which reads whenever it is written as text."""
    registry = CollectorRegistry(auto_describe=False)  # or it would read when it is made
    registry.register(ReadoutCollector(read))
    return registry


def read_metrics(
    database: Database, settings: Settings, as_of: datetime, most_machines: int
) -> Readout:
    """Read all metrics. An error is no exception here: it is in the readout, as ``anomaly_up`` 0.

    Parameters
    ----------
    most_machines : int
        Machines get metrics of their own if there are no more than these.
    """
    readout = Readout()
    readout.put("anomaly_build_info", 1, __version__)
    readout.put("anomaly_collected_timestamp_seconds", as_of)
    readout.put("anomaly_up", 0)
    _put_settings(readout, settings)
    try:
        missing = missing_migrations(database)
        readout.put("anomaly_migrations_missing", len(missing))
        if missing:
            readout.errors.append(f"{database.name} lacks {missing[0]}: run `anomaly migrate`")
            return readout
        with database.transaction(SCORER, read_only=True) as transaction:
            machines = count_machines(transaction)
            readout.put("anomaly_machines", machines)
            _put_scoring(readout, transaction, as_of)
            _put_incidents(readout, transaction)
            _put_models(readout, transaction)
            _put_backfills(readout, transaction, as_of)
            if machines <= RATED_MACHINES:
                _put_alerts(readout, transaction, settings, as_of, machines <= most_machines)
        readout.put("anomaly_up", 1)
    except (AnomalyError, *EXPLAINED) as error:
        readout.errors.append(_line(error))
        return readout
    _put_source(readout, database, settings, as_of, machines)
    return readout


def _put_settings(readout: Readout, settings: Settings) -> None:
    interval, scoring = settings.meter.interval, settings.scoring
    never = float("inf")
    stale_after = scoring.stale_after(interval) if scoring.stale_after_hours else never
    readout.put("anomaly_interval_seconds", interval)
    readout.put("anomaly_stale_after_seconds", stale_after)
    readout.put("anomaly_model_old_after_seconds", settings.gate.champion_age)
    readout.put("anomaly_models_refused_limit", settings.gate.gate_refusals)


def _put_scoring(readout: Readout, transaction: Transaction, as_of: datetime) -> None:
    readout.put("anomaly_watermark_timestamp_seconds", live_coverage(transaction).watermark)
    for row in totals(transaction):
        origin = row["origin"]
        readout.put("anomaly_last_publication_timestamp_seconds", row["last_at"], origin)
        readout.put("anomaly_readings_scored_total", row["inserted"], origin)
        readout.put("anomaly_verdicts_repaired_total", row["updated"], origin)
        readout.put("anomaly_verdicts_retracted_total", row["retracted"], origin)
    recent = live_since(transaction, as_of - RECENT)
    share = recent["anomalies"] / recent["scored"] if recent["scored"] else None
    readout.put("anomaly_abnormal_verdicts_ratio", share)


def _put_incidents(readout: Readout, transaction: Transaction) -> None:
    found = {
        (row["severity"], row["state"]): row["incidents"] for row in count_unresolved(transaction)
    }
    for severity in _SEVERITIES:
        for state in _STATES:
            readout.put("anomaly_incidents", found.get((severity, state), 0), severity, state)


def _put_models(readout: Readout, transaction: Transaction) -> None:
    in_force = champion(transaction)
    readout.put("anomaly_model_version", in_force.version if in_force else 0)
    if in_force:
        readout.put("anomaly_model_trained_to_timestamp_seconds", in_force.trained_to)
    readout.put("anomaly_models_refused", refused_in_a_row(transaction)[0])


def _put_backfills(readout: Readout, transaction: Transaction, as_of: datetime) -> None:
    for row in backfill_progress(transaction, as_of - RECENT):
        number = row["backfill_id"]
        readout.put("anomaly_backfill_progress_ratio", min(row["share"], 1.0), number)
        readout.put("anomaly_backfill_progress_timestamp_seconds", row["last_at"], number)
    stopped = stopped_backfills(transaction, as_of - STOPPED)
    readout.put("anomaly_backfills_stopped", len(stopped))


def _put_alerts(
    readout: Readout, transaction: Transaction, settings: Settings, as_of: datetime, each: bool
) -> None:
    """Alerts against the budget; of `each` machine, too, if so asked."""
    rates = alert_rates(transaction, as_of - RATED, as_of)
    rated = {
        machine: (alerts, row["alert_budget"] or settings.training.alert_budget)
        for machine, row in rates.items()
        if (alerts := alerts_per_week(settings.meter.interval, **row)) is not None
    }
    readout.put("anomaly_alerts_per_week", sum(alerts for alerts, _ in rated.values()))
    readout.put("anomaly_alert_budget_per_week", sum(budget for _, budget in rated.values()))
    if not each:
        return
    for row in newest_per_machine(transaction):
        of = (row["machine_id"], row["name"])
        newest = row["newest_verdict"]
        readout.put("anomaly_machine_newest_verdict_timestamp_seconds", newest, *of)
        if row["machine_id"] in rated:
            alerts, budget = rated[row["machine_id"]]
            readout.put("anomaly_machine_alerts_per_week", alerts, *of)
            readout.put("anomaly_machine_alert_budget_per_week", budget, *of)


def _put_source(
    readout: Readout, database: Database, settings: Settings, as_of: datetime, machines: int
) -> None:
    """What the meter table says, which may be in another database and down by itself."""
    interval = settings.meter.interval
    readout.put("anomaly_source_up", 0)
    horizon = min(settings.scoring.reconcile_horizon, COMPARED // max(machines, 1) * interval)
    horizon = max(horizon, 3 * interval)
    try:
        newest = newest_reading(database, settings.meter_table, settings.meter, as_of)
        if newest:
            readout.put("anomaly_newest_reading_timestamp_seconds", newest + interval)
    except (AnomalyError, *EXPLAINED) as error:
        readout.errors.append(_line(error))
        return
    readout.put("anomaly_source_up", 1)
    try:
        counts = mismatch_counts(database, settings, as_of, horizon)
    except (AnomalyError, *EXPLAINED) as error:  # too slow to compare is not down
        readout.errors.append(_line(error))
        return
    readout.put("anomaly_compared_seconds", horizon)
    for name, count in zip(_MISMATCHES, counts, strict=True):
        readout.put(name, count)


_MISMATCHES: Sequence[str] = (
    "anomaly_unscored_readings",
    "anomaly_outdated_verdicts",
    "anomaly_verdicts_without_reading",
)


def _number(value: float | datetime | timedelta) -> float:
    if isinstance(value, datetime):
        return value.timestamp()
    return value.total_seconds() if isinstance(value, timedelta) else float(value)


def _line(error: Exception) -> str:
    return safe_line(str(explained(error)))
