"""Every setting of the product, read once at an entry point and handed down.

They come from environment variables ``ANOMALY_*``, and from ``anomaly.toml`` where there is one.

Settings come in groups. A function takes the group that it reads (`MeterSettings`, say), so its
signature shows what it depends on. A field has the name of its environment variable in lower
case: ``meter.interval_minutes`` is ``ANOMALY_INTERVAL_MINUTES``.
"""

import difflib
import json
import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime, time, timedelta
from enum import StrEnum
from fractions import Fraction
from types import MappingProxyType
from typing import Any, Self, get_type_hints
from zoneinfo import ZoneInfo, available_timezones

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from anomaly.config_file import (
    VARIABLE,
    find_config_file,
    read_config_file,
    working_directory,
)
from anomaly.errors import SettingsError

PREFIX = "ANOMALY_"
MOST_ALERTS = 1000.0
"""The largest alert budget, in incidents per machine and week: six an hour."""


class Layout(StrEnum):
    """How the meter table is laid out: one column per machine, or one row per reading."""

    WIDE = "wide"
    LONG = "long"


class ReadingKind(StrEnum):
    """What a reading is; the unit in its name is the one that it has unless another is set."""

    ENERGY_KWH = "energy_kwh"
    """A counter: energy used since it was installed."""
    POWER_W = "power_w"
    """Mean power of the interval."""
    ENERGY_KWH_PER_INTERVAL = "energy_kwh_per_interval"
    """Energy used in the interval."""
    ENERGY_KWH_TODAY = "energy_kwh_today"
    """A counter that restarts at zero each day."""

    @property
    def own_unit(self) -> str:
        """The unit of its readings unless another is set."""
        return "W" if self is ReadingKind.POWER_W else "kWh"


ENERGY_UNITS = {"Wh": Fraction(1, 1000), "kWh": Fraction(1), "MWh": Fraction(1000)}
"""Units of energy, in kWh."""
POWER_UNITS = {"W": Fraction(1, 1000), "kW": Fraction(1), "MW": Fraction(1000)}
"""Units of power, in kW."""
SURE_RESTART = timedelta(hours=12)
"""After so long without a reading, a counter of the day is taken to have restarted. Chosen.

A restart shows as a fall, unless the counter has already passed its old value again. A machine
that draws about the same all day needs more than twelve hours for that.
"""


class TimestampLabel(StrEnum):
    """Which end of its interval a reading's timestamp names."""

    START = "start"
    END = "end"


class DetectorName(StrEnum):
    """Which detector is trained: several signals per machine, or the prototype's single one."""

    SIGNALS = "signals"
    PROTOTYPE = "prototype"


class StatusSeverity(StrEnum):
    """The lowest severity at which an open incident makes `anomaly status` exit with 3."""

    NOTICE = "notice"
    WARNING = "warning"
    CRITICAL = "critical"
    NEVER = "never"


class AlertSeverity(StrEnum):
    """How severe what a message is about is, in rising order."""

    NOTICE = "notice"
    WARNING = "warning"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """0 for the least severe."""
        return list(AlertSeverity).index(self)


class AlertKind(StrEnum):
    """What a message is about."""

    MACHINE = "machine"
    METER = "meter"
    PIPELINE = "pipeline"
    MODEL = "model"


class Promotion(StrEnum):
    """What happens to a challenger that passes the gate: put in force, ask a person, or wait."""

    AUTO = "auto"
    APPROVE = "approve"
    MANUAL = "manual"


class LogFormat(StrEnum):
    """Whether the command line logs each published window, and how."""

    NONE = "none"
    JSON = "json"


class Group(BaseModel):
    """Settings that are read together."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DatabaseSettings(Group):
    """The product's own database, and how long a statement, a lock or an idle transaction may last.

    0 seconds: no limit.
    """

    database_url: str = Field("", repr=False, description="Postgres URL for the command line")
    statement_timeout_seconds: int = Field(
        900, ge=0, le=2_000_000, description="a statement; 0: no limit"
    )
    lock_timeout_seconds: int = Field(
        300, ge=0, le=2_000_000, description="waiting for a lock; 0: no limit"
    )
    idle_timeout_seconds: int = Field(1800, ge=0, description="an idle transaction; 0: no limit")


class ModelSettings(Group):
    """Where the files of model versions are kept, and how many."""

    models_url: str = Field(
        "models/", description="folder, file:// or s3:// URL of the model artefacts"
    )
    keep_versions: int = Field(
        20, ge=0, description="newest versions whose files are kept in any case; 0: all"
    )


class MeterTableSettings(Group):
    """The meter table: it belongs to somebody else and is only read."""

    source_schema: str = Field("anomaly", min_length=1, description="schema of the meter table")
    source_table: str = Field("meter_readings", min_length=1, description="the meter table")
    source_layout: Layout = Field(
        Layout.WIDE, description="`wide`: one column per machine; `long`: one row per reading"
    )
    source_timestamp_column: str = Field(
        "utc_timestamp", min_length=1, description="when the reading was taken"
    )
    source_ingested_at_column: str = Field(
        "ingested_at", description="when a row was written; empty, or not a column: not known"
    )
    source_machine_column: str = Field(
        "machine_id",
        description="long layout: the machine's id, text or integer (kept up to 999,999,999)",
    )
    source_value_column: str = Field("reading", description="long layout: the reading")
    source_machines: dict[str, int] = Field(
        default_factory=dict,
        description='wide layout: {"Column": machine_id}; empty: every machine_<n>',
    )

    @field_validator("source_machines", mode="before")
    @classmethod
    def _machines_are_json(cls, machines: object) -> object:
        try:
            return json.loads(machines) if isinstance(machines, str) else machines
        except ValueError:
            raise ValueError('write JSON, for example {"Pump A": 1}') from None

    @field_validator("source_machines")
    @classmethod
    def _machine_ids_are_distinct(cls, machines: dict[str, int]) -> dict[str, int]:
        if len(set(machines.values())) != len(machines):
            raise ValueError("two columns map to the same machine id; give each its own")
        return machines

    @model_validator(mode="after")
    def _long_layout_needs_columns(self) -> Self:
        if self.source_layout is Layout.LONG and not (
            self.source_machine_column and self.source_value_column
        ):
            raise ValueError("the long layout needs source_machine_column and source_value_column")
        return self

    @property
    def source_name(self) -> str:
        """The meter table as people write it."""
        return f"{self.source_schema}.{self.source_table}"


class MeterSettings(Group):
    """What a reading is, how often there is one, and when its meter is at fault."""

    reading_kind: ReadingKind = Field(
        ReadingKind.ENERGY_KWH,
        description="`energy_kwh`: a cumulative counter; `power_w`: mean power;"
        " `energy_kwh_per_interval`: energy of each interval; `energy_kwh_today`: a counter that"
        " restarts at zero each day",
    )
    reading_unit: str = Field(
        "",
        description="unit of the readings: `Wh`, `kWh` or `MWh` of energy, `W`, `kW` or `MW` of"
        " power; empty: kWh or W",
    )
    interval_minutes: int = Field(15, ge=1, le=1440, description="how often meters are read")
    timestamp_label: TimestampLabel = Field(
        TimestampLabel.START, description="which end of its interval a timestamp names"
    )
    source_timezone: str = Field(
        "", description="zone of timestamps stored without one, and of machines that are new"
    )
    max_gap_days: float = Field(
        7.0, gt=0, le=31, description="a previous reading farther back counts as none"
    )
    meter_resolution_kwh: float = Field(
        0.001,
        ge=0,
        description="a counter that falls by no more has not fallen, kWh whatever the unit",
    )
    stuck_margin_hours: float = Field(
        2.0,
        ge=0,
        description="how much longer than ever in training is stuck, two intervals at least",
    )
    stuck_flat_share: float = Field(
        0.02, ge=0, le=1, description="a machine flat more often than this is never called stuck"
    )

    @field_validator("source_timezone")
    @classmethod
    def _zone_exists(cls, name: str) -> str:
        if name and name not in available_timezones():
            raise ValueError("not a time zone name; write one such as 'Europe/Berlin' or 'UTC'")
        return name

    @model_validator(mode="after")
    def _unit_fits_kind(self) -> Self:
        if self.reading_unit and self.reading_unit not in self._units:
            *others, last = self._units
            raise ValueError(
                f"ANOMALY_READING_UNIT is {self.reading_unit!r}, which is no unit of"
                f" ANOMALY_READING_KIND {self.reading_kind.value!r}: set {', '.join(others)}"
                f" or {last}"
            )
        return self

    @model_validator(mode="after")
    def _restarts_can_be_seen(self) -> Self:
        if self.restarts_daily and self.interval >= SURE_RESTART:
            raise ValueError(
                f"ANOMALY_INTERVAL_MINUTES is {self.interval_minutes}, too long for"
                f" ANOMALY_READING_KIND {self.reading_kind.value!r}: read the counter at least"
                " twice a day. If each reading is a day's energy, set 'energy_kwh_per_interval'"
            )
        return self

    @property
    def is_counter(self) -> bool:
        """Whether the energy of an interval is the difference of two readings."""
        return self.reading_kind in (ReadingKind.ENERGY_KWH, ReadingKind.ENERGY_KWH_TODAY)

    @property
    def restarts_daily(self) -> bool:
        """Whether a counter that falls has restarted, as it does each day."""
        return self.reading_kind is ReadingKind.ENERGY_KWH_TODAY

    @property
    def is_of_interval(self) -> bool:
        """Whether a reading is the energy of its own interval, and of no time before that."""
        return self.reading_kind is ReadingKind.ENERGY_KWH_PER_INTERVAL

    @property
    def unit(self) -> str:
        """Unit of the readings."""
        return self.reading_unit or self.reading_kind.own_unit

    @property
    def scale(self) -> Fraction:
        """What one unit of a reading is: kWh of a counter, else kW of mean power."""
        unit = self._units[self.unit]
        if self.is_of_interval:
            return unit * 60 / self.interval_minutes
        return unit

    @property
    def change_scale(self) -> Fraction:
        """What one unit of a change is: kWh of a counter, else W of mean power."""
        return self.scale if self.is_counter else self.scale * 1000

    @property
    def _units(self) -> dict[str, Fraction]:
        return POWER_UNITS if self.reading_kind is ReadingKind.POWER_W else ENERGY_UNITS

    @property
    def interval(self) -> timedelta:
        """Length of one reading's interval."""
        return timedelta(minutes=self.interval_minutes)

    @property
    def max_gap(self) -> timedelta:
        """A previous reading farther back than this counts as none."""
        return timedelta(days=self.max_gap_days)

    @property
    def zone(self) -> ZoneInfo | None:
        """Zone of timestamps stored without one; None: such timestamps are refused."""
        return ZoneInfo(self.source_timezone) if self.source_timezone else None


class ScoringSettings(Group):
    """Which windows are scored, how much at once, and when the source is stale."""

    lateness_hours: float = Field(
        2.0,
        ge=0,
        le=24 * 7,
        description="how far behind a tick looks again, two intervals at least; 0: not",
    )
    chunk_days: int = Field(
        7, ge=1, le=366, description="the longest range that is read and published at once"
    )
    chunk_readings: int = Field(
        500_000,
        ge=1,
        description="with many machines the range is shorter: no more readings at once than this",
    )
    ingested_overlap_minutes: float = Field(
        60.0,
        ge=0,
        le=100_000,
        description="longest open transaction whose rows a tick still sees",
    )
    reconcile_days: int = Field(
        30, ge=1, le=3660, description="how far back a reconciliation looks"
    )
    retract_limit: float = Field(
        0.01, ge=0, le=1, description="share of a window's verdicts that may be retracted"
    )
    stale_after_hours: float = Field(
        2.0,
        ge=0,
        le=87_600,
        description="age of the newest reading that is a fault, two intervals at least; 0: never",
    )

    @property
    def chunk(self) -> timedelta:
        """The longest range that is read and published at once."""
        return timedelta(days=self.chunk_days)

    @property
    def reconcile_horizon(self) -> timedelta:
        """How far back a reconciliation looks by default."""
        return timedelta(days=self.reconcile_days)

    def lateness(self, interval: timedelta) -> timedelta:
        """How far behind its interval a tick looks again: at least two intervals, unless 0."""
        lateness = timedelta(hours=self.lateness_hours)
        return max(lateness, 2 * interval) if lateness else lateness

    def stale_after(self, interval: timedelta) -> timedelta:
        """How long after the end of the newest reading the source is at fault."""
        return max(timedelta(hours=self.stale_after_hours), 2 * interval)

    def silent_after(self, interval: timedelta) -> timedelta | None:
        """The same of a machine; None: it never is."""
        return self.stale_after(interval) if self.stale_after_hours else None


class IncidentSettings(Group):
    """When abnormal readings become an incident, and when they are a new normal."""

    dropout_hours: float = Field(
        1.0, gt=0, le=24 * 31, description="how long a silent machine is no incident yet"
    )
    settle_after_hours: float = Field(
        72.0,
        gt=0,
        le=24 * 366,
        description="how long a machine may be abnormal before that is its new normal",
    )
    price_per_kwh: float = Field(
        0.0, ge=0, description="price of a kWh, to show what an incident costs; 0: not shown"
    )
    status_exit_severity: StatusSeverity = Field(
        StatusSeverity.CRITICAL,
        description="from which severity on an open incident makes `anomaly status` exit with 3",
    )

    @property
    def dropout(self) -> timedelta:
        """How long a machine may be silent before that is an incident."""
        return timedelta(hours=self.dropout_hours)

    @property
    def settle_after(self) -> timedelta:
        """How long a machine may be abnormal before that is its new normal."""
        return timedelta(hours=self.settle_after_hours)


class TrainingSettings(Group):
    """Which detector is trained, and on which readings."""

    detector: DetectorName = Field(
        DetectorName.SIGNALS, description="which detector a training trains"
    )
    alert_budget: float = Field(
        1.0, gt=0, le=MOST_ALERTS, description="incidents per machine and week that are bearable"
    )
    least_deviation_share: float = Field(
        0.02,
        ge=0,
        le=1,
        description="an hour off by less than this share of the most that its machine usually draws"
        " is not worth telling, unless it lasts",
    )
    least_deviation_kw: float = Field(
        0.0, ge=0, description="nor is one off by less than so many kW"
    )
    holidays: str = Field(
        "",
        description="public holidays count as weekends: a country, or one with a region, as in"
        " `DE` or `DE-BW`; of machines without a calendar of their own",
    )
    forest_trees: int = Field(350, ge=1, le=10_000, description="trees of the forest")
    forest_max_samples: int = Field(256, ge=2, description="readings a tree is grown on")
    forest_contamination: float = Field(
        0.05, gt=0, le=0.5, description="share of training readings that are anomalies"
    )
    forest_one_hot_machines: int = Field(
        100,
        ge=0,
        le=1000,
        description="with more machines than this the prototype's forest does not tell them apart",
    )
    random_seed: int = Field(42, ge=0, le=2**32 - 1, description="seed of every random choice")
    training_weeks: float = Field(8.0, gt=0, le=5200, description="weeks a training looks back")
    judging_days: float = Field(
        7.0, ge=0, le=3660, description="newest days that judge and are never trained on"
    )
    training_min_days: float = Field(7.0, gt=0, le=3660, description="least history to train on")

    def missing_history(self, days: float) -> str:
        """How much is missing to train on `days` of readings, in words; empty: it is enough."""
        if days >= self.training_min_days:
            return ""
        return (
            f"{max(days, 0):.1f} days of readings to train on, at least"
            f" {self.training_min_days:g} are needed (the newest {self.judging_days:g} days judge"
            f" and are left out): wait for {self.training_min_days - days:.1f} more days, load"
            " older readings, or set ANOMALY_TRAINING_MIN_DAYS"
        )


class GateSettings(Group):
    """When a newly trained version may replace the one in force; a first version always may."""

    promotion: Promotion = Field(
        Promotion.AUTO,
        description="after the gate: `auto`: put in force; `approve`: ask in Airflow;"
        " `manual`: wait for `anomaly models promote`",
    )
    approval_timeout_hours: float = Field(
        72.0, gt=0, le=8760, description="an approval not given by then is a rejection"
    )
    gate_alert_rate_factor: float = Field(
        2.0,
        ge=1,
        description="most alerts, as a multiple of the champion's or of the budget, before chance",
    )
    gate_recall_loss: float = Field(
        0.1, ge=0, le=1, description="how much less of the injected faults it may find"
    )
    gate_psi: float = Field(
        0.25, gt=0, description="population stability index that is told as drift; refuses nothing"
    )
    gate_missing_share: float = Field(
        0.0, ge=0, le=1, description="most machines that the champion knows and it does not"
    )
    gate_refusals: int = Field(
        2, ge=1, le=100, description="refusals in a row after which a person is asked"
    )
    gate_champion_weeks: float = Field(
        4.0,
        gt=0,
        le=520,
        description="age of a champion's training from which a refusal asks a person at once, and"
        " from which it no longer refuses by what it finds",
    )

    @property
    def champion_age(self) -> timedelta:
        """Age of a champion's training from which a refusal is no longer its own affair."""
        return timedelta(weeks=self.gate_champion_weeks)


class AlertRoute(BaseModel):
    """Channels, and which messages go to them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[\w.-]{1,50}$")
    urls: tuple[SecretStr, ...] = Field(min_length=1)
    severities: tuple[AlertSeverity, ...] = Field(tuple(AlertSeverity), min_length=1)
    kinds: tuple[AlertKind, ...] = Field(tuple(AlertKind), min_length=1)
    sites: tuple[str, ...] = ()
    """Empty: every site. What is about no machine goes to every route of its kind."""
    escalation: bool = False
    """Only for critical incidents that nobody has acknowledged."""


_ROUTES_FORM = (
    'write URLs of apprise, separated by spaces, or JSON such as [{"name": "ops", "urls":'
    ' ["mailto://..."], "severities": ["critical"], "kinds": ["machine"], "sites": ["Hall 1"]}]'
)


class AlertSettings(Group):
    """Whom messages go to, when, and what keeps them back."""

    alert_routes: tuple[AlertRoute, ...] = Field(
        (),
        description="where messages go: URLs of apprise, or JSON with a route per severity, kind"
        " and site; empty: nobody is told",
    )
    alert_age_hours: float = Field(
        24.0,
        gt=0,
        le=24 * 31,
        description="what is older when it is found, or when it could be sent, is not sent",
    )
    alert_retry_hours: float = Field(
        24.0,
        gt=0,
        le=24 * 31,
        description="how long a message is tried before it is given up",
    )
    alert_group_from: int = Field(
        4, ge=2, le=1000, description="from how many machines on there is one message for all"
    )
    alert_quiet_hours: str = Field(
        "",
        pattern=r"^$|^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d$",
        description="by the machine's clock, as 22:00-06:00: what is not critical waits",
    )
    alert_escalate_minutes: float = Field(
        0.0,
        ge=0,
        le=60 * 24 * 31,
        description="after how long a critical incident that nobody has acknowledged goes to the"
        " routes with escalation; 0: never",
    )
    alert_unscored_minutes: float = Field(
        60.0,
        gt=0,
        le=60 * 24 * 31,
        description="after how long without a scored window, or without a check of the meters'"
        " freshness, somebody is told",
    )
    alert_over_budget: float = Field(
        3.0,
        ge=1,
        le=1000,
        description="how many times their budget the alerts of a week may be before somebody is"
        " told",
    )
    alert_templates: str = Field(
        "", description="folder with your own templates of messages; empty: the shipped ones"
    )

    @field_validator("alert_routes", mode="before")
    @classmethod
    def _routes_are_urls_or_json(cls, routes: object) -> object:
        if not isinstance(routes, str):
            return routes
        if not routes.lstrip().startswith(("[", "{")):
            return [{"name": "everything", "urls": routes.split()}] if routes.strip() else []
        try:
            found = json.loads(routes)
        except ValueError:
            raise ValueError(f"this is no JSON: {_ROUTES_FORM}") from None
        return [found] if isinstance(found, dict) else found

    @field_validator("alert_routes")
    @classmethod
    def _routes_have_their_own_names(cls, routes: tuple[AlertRoute, ...]) -> tuple[AlertRoute, ...]:
        names = [route.name for route in routes]
        if len(set(names)) != len(names):
            raise ValueError("two routes have the same name; give each its own")
        return routes

    @property
    def age(self) -> timedelta:
        """How old what is told may be."""
        return timedelta(hours=self.alert_age_hours)

    @property
    def retry(self) -> timedelta:
        """How long a message is tried again."""
        return timedelta(hours=self.alert_retry_hours)

    @property
    def escalate_after(self) -> timedelta | None:
        """After how long a critical incident is escalated; None: never."""
        minutes = self.alert_escalate_minutes
        return timedelta(minutes=minutes) if minutes else None

    @property
    def unscored(self) -> timedelta:
        """How long nothing may be scored or checked."""
        return timedelta(minutes=self.alert_unscored_minutes)

    @property
    def quiet_hours(self) -> tuple[time, time] | None:
        """From when to when what is not critical waits, by a local clock; None: never."""
        if not self.alert_quiet_hours:
            return None
        start, end = (time.fromisoformat(part) for part in self.alert_quiet_hours.split("-"))
        return start, end


class LogSettings(Group):
    """What the command line logs on standard error; tasks always log into Airflow's own log."""

    log_format: LogFormat = Field(
        LogFormat.NONE, description="a line per published window: its run, window and versions"
    )


class ApiSettings(Group):
    """What the API takes, and how much of it."""

    api_strict: bool = Field(
        False, description="predictions have the prototype's three fields and no others"
    )
    api_most_records: int = Field(10_000, ge=1, le=1_000_000, description="records of a request")
    api_most_megabytes: float = Field(20.0, gt=0, le=1000, description="size of a request")
    api_seconds: float = Field(30.0, ge=0.1, le=3600, description="longest time of a request")
    api_requests_per_minute: int = Field(
        6000, ge=1, le=1_000_000, description="requests per minute with one key, or of one user"
    )
    api_at_once: int = Field(2, ge=1, le=15, description="requests worked on at once")


class RetentionSettings(Group):
    """How long rows are kept; 0 months: for ever. Readings, models, incidents and labels stay."""

    keep_results_months: int = Field(
        0, ge=0, le=1200, description="whole months of verdicts, besides the current one"
    )
    keep_history_months: int = Field(
        0, ge=0, le=1200, description="verdicts that were replaced, since they were"
    )
    keep_ledger_months: int = Field(
        0,
        ge=0,
        le=1200,
        description="rows of the ledger, and alerts; no shorter than verdicts and history",
    )

    @model_validator(mode="after")
    def _ledger_outlives_what_points_to_it(self) -> Self:
        if self.keep_ledger_months and any(
            not months or months > self.keep_ledger_months
            for months in (self.keep_results_months, self.keep_history_months)
        ):
            raise ValueError(
                f"ANOMALY_KEEP_LEDGER_MONTHS is {self.keep_ledger_months}, and verdicts or their"
                " history are kept longer: they point to the ledger, keep it as long"
            )
        return self

    @property
    def deletes(self) -> bool:
        """Whether anything is ever deleted."""
        return bool(self.keep_results_months or self.keep_history_months or self.keep_ledger_months)

    @staticmethod
    def oldest(months: int, as_of: datetime) -> datetime | None:
        """The first moment that is kept, the beginning of a month (UTC); None: everything is."""
        if not months:
            return None
        year, month = divmod(as_of.year * 12 + as_of.month - 1 - months, 12)
        return datetime(max(year, 1), month + 1, 1, tzinfo=UTC)


class DagSettings(Group):
    """What the DAGs and their tasks carry."""

    dag_prefix: str = Field(
        "",
        pattern=r"^[\w.-]*$",
        max_length=100,
        description="what the names of our DAGs begin with, where another DAG has such a name",
    )
    dag_owner: str = Field("anomaly", description="owner of every task")
    dag_pool: str = Field("default_pool", description="pool of every task")
    dag_retries: int = Field(3, ge=0, le=100, description="retries of every task")
    dag_retry_delay_seconds: int = Field(60, ge=0, description="pause before a retry")
    dag_scoring_hours: float = Field(
        0.0,
        ge=0,
        le=24 * 31,
        description="longest run of score_readings, a task has half of it; the next run catches"
        " up. 0: an hour, or two intervals where that is more",
    )
    dag_longest_hours: float = Field(
        24.0,
        gt=0,
        le=24 * 31,
        description="longest run of every other DAG but send_alerts, a task has half of it",
    )
    dag_backfill_pool: str = Field(
        "default_pool",
        description="pool of the tasks of backfill_scores",
    )
    dag_backfill_tasks: int = Field(
        1,
        ge=1,
        le=100,
        description="chunks of a backfill that run at once; 1 leaves room for the 15-minute run",
    )
    dag_backfill_approval_share: float = Field(
        0.02,
        ge=0,
        le=1,
        description="a preview that would turn more than this share of the verdicts that are there"
        " into their opposite asks before it writes; 1: never",
    )
    dag_backfill_approval_hours: float = Field(
        72.0, gt=0, le=24 * 31, description="how long a preview waits for an answer, then: no"
    )
    dag_failure_callback: str = Field(
        "", description="dotted path of what to call when a task fails"
    )
    dag_deadline_callback: str = Field(
        "",
        description="dotted path of what to call when a run of score_readings has not ended in"
        " time; empty: there is no deadline",
    )
    dag_deadline_minutes: float = Field(
        15.0,
        gt=0,
        le=60 * 24 * 31,
        description="how long after its interval a run of score_readings must have ended",
    )

    @property
    def backfill_approval(self) -> timedelta:
        """How long a preview waits for an answer."""
        return timedelta(hours=self.dag_backfill_approval_hours)

    @property
    def deadline(self) -> timedelta:
        """How long after the end of its interval a run of the scheduled scoring has."""
        return timedelta(minutes=self.dag_deadline_minutes)

    @property
    def longest_run(self) -> timedelta:
        """Longest run of every DAG but the scheduled scoring."""
        return timedelta(hours=self.dag_longest_hours)

    def scoring_run(self, interval: timedelta) -> timedelta:
        """Longest run of the scheduled scoring."""
        if self.dag_scoring_hours:
            return timedelta(hours=self.dag_scoring_hours)
        return max(timedelta(hours=1), 2 * interval)


class Settings(BaseModel):
    """All groups of settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    database: DatabaseSettings = DatabaseSettings()
    models: ModelSettings = ModelSettings()
    meter_table: MeterTableSettings = MeterTableSettings()
    meter: MeterSettings = MeterSettings()
    scoring: ScoringSettings = ScoringSettings()
    incidents: IncidentSettings = IncidentSettings()
    training: TrainingSettings = TrainingSettings()
    gate: GateSettings = GateSettings()
    alerts: AlertSettings = AlertSettings()
    api: ApiSettings = ApiSettings()
    retention: RetentionSettings = RetentionSettings()
    log: LogSettings = LogSettings()
    dags: DagSettings = DagSettings()

    @model_validator(mode="after")
    def _groups_fit(self) -> Self:
        return self._checked()

    def _checked(self) -> Self:
        """The settings, refused where two groups contradict each other."""
        months, days = self.retention.keep_results_months, self.scoring.reconcile_days
        if months and days > months * 28:
            raise ValueError(
                f"ANOMALY_KEEP_RESULTS_MONTHS is {months}, and ANOMALY_RECONCILE_DAYS is {days}:"
                " reconciling would make the deleted verdicts again, keep them longer"
            )
        return self

    def values(self) -> dict[str, Any]:
        """Every field of every group by its own name, as plain JSON values."""
        groups = self.model_dump(mode="json").values()
        return {name: value for group in groups for name, value in group.items()}

    def changed(self, **fields: object) -> Self:
        """The same settings but for some fields, each named without its group.

        Raises
        ------
        SettingsError
            As `load_settings`.
        """
        given = _by_group(fields)
        whole = {group: getattr(self, group).model_dump() | given[group] for group in given}
        try:
            changed = {
                group: type(getattr(self, group)).model_validate(values)
                for group, values in whole.items()
            }
        except ValidationError as error:
            found = [issue | {"loc": ("", *issue["loc"])} for issue in error.errors()]
            raise SettingsError("; ".join(_explain(issue) for issue in found)) from None
        copy = self.model_copy(update=changed)
        try:
            return copy._checked()
        except ValueError as error:
            raise SettingsError(str(error)) from None


GROUPS: dict[str, type[Group]] = {
    name: group for name, group in get_type_hints(Settings).items() if name in Settings.model_fields
}
"""The groups of `Settings`, by name."""

_SECRET = {"alert_routes"}
"""Fields whose values no message shows: their URLs hold tokens."""

_GROUP_OF = {field: name for name, group in GROUPS.items() for field in group.model_fields}


def load_settings(environment: Mapping[str, str] | None = None, **overrides: object) -> Settings:
    """Read the settings, refusing unknown names and wrong values.

    Environment variables win over ``anomaly.toml``, see `anomaly.config_file`.

    Parameters
    ----------
    environment : mapping of str to str, optional
        Where ``ANOMALY_*`` is looked up; default ``os.environ``. If it is given, no file in the
        working directory is read.
    **overrides : object
        Fields that win over both, each named without its group.

    Raises
    ------
    SettingsError
        Naming the variable, the value found and what is allowed.
    """
    given, sources = _given(environment)
    return _validated(given | overrides, {name: sources.get(name, "") for name in given})


def settings_in_force() -> tuple[Settings, dict[str, str]]:
    """The settings, and where each field comes from that is not a default: a variable or a file.

    Raises
    ------
    SettingsError
        As `load_settings`.
    """
    given, sources = _given(None)
    variables = {name: source or _variable(name) for name, source in sources.items()}
    return _validated(given, sources), variables


def _given(environment: Mapping[str, str] | None) -> tuple[dict[str, object], dict[str, str]]:
    """The fields that are set, and for those of a file its name."""
    variables = os.environ if environment is None else environment
    _refuse_misspelt_names(variables)
    folder = working_directory() if environment is None else None
    file = find_config_file(variables, folder)
    in_file = {} if file is None else read_config_file(file, _GROUP_OF)
    for name in in_file:
        if name not in _GROUP_OF:
            close = difflib.get_close_matches(name, _GROUP_OF, n=1)
            hint = f"did you mean {close[0]}?" if close else "remove it"
            raise SettingsError(f"{file} has {name}, which is not a setting: {hint}")
    of_variables = _read(variables)
    return in_file | of_variables, dict.fromkeys(in_file, str(file)) | dict.fromkeys(
        of_variables, ""
    )


def _validated(fields: Mapping[str, object], sources: Mapping[str, str]) -> Settings:
    try:
        return Settings.model_validate(_by_group(fields))
    except ValidationError as error:
        raise SettingsError("; ".join(_explain(i, sources) for i in error.errors())) from None


def _variable(field: str) -> str:
    return PREFIX + field.upper()


def _by_group(fields: Mapping[str, object]) -> dict[str, dict[str, object]]:
    groups: dict[str, dict[str, object]] = {}
    for name, value in fields.items():
        if name not in _GROUP_OF:
            raise SettingsError(f"{_variable(name)} is not a setting")
        groups.setdefault(_GROUP_OF[name], {})[name] = value
    return groups


def _read(variables: Mapping[str, str]) -> dict[str, object]:
    """The fields that variables set, as texts; a variable without a value sets none."""
    given = {name.upper(): value for name, value in variables.items() if value}
    return {field: given[name] for field in _GROUP_OF if (name := _variable(field)) in given}


def _refuse_misspelt_names(environment: Mapping[str, str]) -> None:
    """Refuse what looks like a setting; other programs' ``ANOMALY_*`` variables are left alone."""
    known = {_variable(name) for name in _GROUP_OF} | {VARIABLE}
    for name in environment:
        if name.upper().startswith(PREFIX) and name.upper() not in known:
            close = difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.85)
            if close:
                raise SettingsError(f"{name} is not a setting: did you mean {close[0]}?")


def _is_name(part: int | str) -> bool:
    """Whether part of a place may be shown: a number, or a name that is no URL."""
    return isinstance(part, int) or re.fullmatch("[a-z_]{1,20}", part) is not None


def _explain(issue: Any, sources: Mapping[str, str] = MappingProxyType({})) -> str:
    """Say a problem of pydantic's, whose place is a group and a field, or a group alone."""
    message = str(issue["msg"]).removeprefix("Value error, ")
    if issue["type"] == "extra_forbidden":
        message = "there is no such field"
    place = issue["loc"]
    if len(place) < 2:
        return message
    field = str(place[1])
    file = sources.get(field)
    name = f"{field} in {file}" if file else _variable(field)
    if field in _SECRET:
        inside = "".join(f"[{part}]" for part in place[2:] if _is_name(part))
        form = "" if _ROUTES_FORM in message else f"; {_ROUTES_FORM}"
        return f"{name}{inside}, which is not shown here: {message}{form}"
    return f"{name} is {issue['input']!r}: {message}"
