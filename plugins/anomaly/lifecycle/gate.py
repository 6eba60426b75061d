"""The gate: judge a new version against the one in force, on readings that neither has seen.

Everything here is a pure function of two models and readings. The judgement is stored with the
version.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from anomaly.evaluation.alert_matching import group_incidents, poisson_bound
from anomaly.evaluation.baselines import AbsoluteChange, HourOfWeekResidual, RandomAlerts
from anomaly.evaluation.fault_injection import EVENTS_PER_WEEK, inject
from anomaly.evaluation.ordinary_days import learn_ordinary_days
from anomaly.evaluation.our_detector import measured_readings, meter_alarms
from anomaly.evaluation.protocol import Contender, Scored, run_trials
from anomaly.evaluation.report import EvaluationReport
from anomaly.evaluation.train_test_weeks import (
    JUDGING_LOOK_BACK,
    MOSTLY_FLAT,
    WEEK,
    Case,
    Trial,
    finite_readings,
    readings_within,
)
from anomaly.models.model import Model
from anomaly.models.verdicts import verdicts_on
from anomaly.readings.meter_faults import profile_machines, quality_at_once
from anomaly.readings.quality import Quality
from anomaly.settings import GateSettings, MeterSettings, Settings, TrainingSettings
from anomaly.windows import Window

_RARELY = 0.05
"""Share of readings that may be abnormal on any plant. Chosen: the prototype's contamination, and
the most that `signals` lets a machine alarm in training."""

CHALLENGER, CHAMPION = "challenger", "champion"
SHORTEST = timedelta(days=1)
"""Judging days that are shorter than this judge nothing. Chosen: a machine's day repeats."""

_SEEDS = (2, 60)
"""Fewest and most injections of the judging days. Chosen: two give an interval at all, 60 bound the
time for a single machine."""
_EVENTS = 200
"""About so many faults are injected, whatever the number of machines and days. Chosen: the 95 %
interval of recall is then at most about 0.14 wide, as of 200 independent events."""
_MOST_MACHINES = 50
"""Faults are injected into at most so many machines, evenly drawn. Chosen: it bounds the time."""


@dataclass(frozen=True)
class Standing:
    """How one model does on the judging days.

    Attributes
    ----------
    alerts : int
        Incidents: runs of alarms of a machine (`anomaly.evaluation.alert_matching.join_gap`).
    alert_rate : float
        Alerts per machine-week.
    anomaly_share : float
        Share of readings that are anomalies.
    recall : float or None
        Share of injected faults found; None where none could be injected.
    recall_interval : tuple of float or None
        Its 95 % interval, over injections.
    luck : float or None
        Share of injected faults that as many alerts at random times find.
    """

    alerts: int
    alert_rate: float
    anomaly_share: float
    recall: float | None = None
    recall_interval: tuple[float, float] | None = None
    luck: float | None = None

    @property
    def beyond_luck(self) -> float | None:
        """Share found of the faults that luck would miss; None where none could be injected."""
        if self.recall is None:
            return None
        luck = min(self.luck or 0.0, 0.999)
        return (self.recall - luck) / (1 - luck)


@dataclass(frozen=True)
class Judgement:
    """The gate's judgement on a challenger; it is refused if there are any `reasons`.

    Attributes
    ----------
    champion_version : int or None
        The version it was compared with; None where none was in force.
    champion_trained_to : str
        End of that version's training, ISO 8601; empty where none was in force.
    judged_from, judged_to : str
        Start and end of the judging days, ISO 8601. The start is empty where nothing could be
        judged.
    agreement : float or None
        Share of readings with the same verdict of both.
    kappa : float or None
        Cohen's kappa: the agreement beyond what chance gives.
    baselines : mapping of str to float or None
        Recall of the baselines, at the challenger's own alert rate.
    events : int
        Number of injected faults.
    drift : list of mapping
        ``machine_id``, ``signal`` and ``psi`` between the two training windows.
    missing_machines : list of int
        Machines with readings on the judging days that only the champion knows.
    alerts_by_machine : mapping
        Number of incidents of the challenger and of the champion, per machine.
    """

    champion_version: int | None
    champion_trained_to: str = ""
    judged_from: str = ""
    judged_to: str = ""
    machines: int = 0
    challenger: Standing | None = None
    champion: Standing | None = None
    agreement: float | None = None
    kappa: float | None = None
    baselines: Mapping[str, float | None] = field(default_factory=dict)
    events: int = 0
    drift: Sequence[Mapping[str, Any]] = ()
    missing_machines: Sequence[int] = ()
    alerts_by_machine: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    reasons: Sequence[str] = ()

    @property
    def passed(self) -> bool:
        """Whether the challenger may replace the champion."""
        return not self.reasons

    @property
    def machine_weeks(self) -> float:
        """Weeks of all judged machines together; 0 where nothing was judged."""
        if not self.judged_from:
            return 0.0
        start, end = (datetime.fromisoformat(text) for text in (self.judged_from, self.judged_to))
        return self.machines * ((end - start) / WEEK)

    @property
    def champion_age(self) -> timedelta:
        """Time from the end of the champion's training to the end of the judging days."""
        if not self.champion_trained_to or not self.judged_to:
            return timedelta(0)
        trained, judged = (
            datetime.fromisoformat(text) for text in (self.champion_trained_to, self.judged_to)
        )
        return judged - trained

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for the database and JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Compared:
    """A judgement, and the verdicts that it was made from, for pictures.

    Attributes
    ----------
    verdicts : mapping of str to DataFrame
        Verdicts of the challenger and of the champion, on the same readings.
    """

    judgement: Judgement
    verdicts: Mapping[str, pd.DataFrame]


@dataclass(frozen=True)
class JudgingDays:
    """The readings to judge on, and those before them that verdicts depend on.

    Attributes
    ----------
    measured : DataFrame
        As `anomaly.readings.measuring.measure` returns it, from `JUDGING_LOOK_BACK` before
        `window` on.
    window : Window
        The days whose verdicts count.
    """

    measured: pd.DataFrame
    window: Window

    @property
    def wanted(self) -> npt.NDArray[np.bool_]:
        """Which rows lie in the window, as an array of bool."""
        stamps = self.measured["utc_timestamp"]
        return ((stamps >= self.window.start) & (stamps < self.window.end)).to_numpy()


@dataclass(frozen=True)
class InForce:
    """The version in force, opened."""

    version: int
    model: Model
    trained_to: datetime


def judge_on_new_days(
    challenger: Model,
    training: pd.DataFrame,
    trained_to: datetime,
    champion: InForce | None,
    newest: datetime,
    read: Callable[[Window], JudgingDays],
    settings: Settings,
    zone: str = "UTC",
) -> Compared:
    """Judge a challenger on the readings that neither was trained on; refuse it if there are none.

    Parameters
    ----------
    training : DataFrame
        As for `judge_challenger`.
    trained_to : datetime
        End of the challenger's training.
    newest : datetime
        End of the newest interval with a reading.
    read : function
        Reads the judging days.
    """
    start = max(trained_to, champion.trained_to if champion else trained_to)
    end = min(start + timedelta(days=settings.training.judging_days), newest)
    if end - start < SHORTEST:
        reason = _too_few_days(start, end)
    elif not (days := read(Window(start, end))).wanted.any():
        reason = f"there are no readings in {days.window} to judge on"
    else:
        return judge_challenger(
            challenger,
            champion.model if champion else None,
            champion.version if champion else None,
            training,
            days,
            settings,
            zone,
            champion.trained_to if champion else None,
        )
    if champion is None:
        return unjudged(None, None, end, reason)
    return unjudged(champion.version, champion.trained_to, end, reason)


def unjudged(
    version: int | None, trained_to: datetime | None, end: datetime, reason: str
) -> Compared:
    """A judgement without measures: refused, unless there is nothing to stay in its place.

    Parameters
    ----------
    version, trained_to
        The champion's, and the end of its training; None where none is in force.
    end : datetime
        When it should have been judged: the champion's age counts all the same.
    """
    judgement = Judgement(
        version,
        champion_trained_to=trained_to.isoformat() if trained_to else "",
        judged_to=end.isoformat(),
        reasons=(reason,) if version is not None else (),
    )
    return Compared(judgement, {})


def _too_few_days(start: datetime, end: datetime) -> str:
    days = max(end - start, timedelta(0)) / timedelta(days=1)
    return (
        f"{days:.1f} days of readings are there that neither version was trained on (from"
        f" {start:%Y-%m-%d %H:%M} on), at least one is needed: wait, or train on an earlier window"
    )


def judge_challenger(
    challenger: Model,
    champion: Model | None,
    champion_version: int | None,
    training: pd.DataFrame,
    days: JudgingDays,
    settings: Settings,
    zone: str = "UTC",
    champion_trained_to: datetime | None = None,
) -> Compared:
    """Judge which of two would serve better: a challenger, or the champion if there is one.

    Parameters
    ----------
    training : DataFrame
        The measured readings that the challenger was trained on.
    zone : str
        Where the machines stand: injected faults depend on the hour of the day.
    champion_trained_to : datetime, optional
        End of the champion's training.
    """
    models = {CHALLENGER: challenger} | ({CHAMPION: champion} if champion else {})
    verdicts = {
        name: verdicts_on(days.measured, days.wanted, model, settings.meter)
        for name, model in models.items()
    }
    standings = {
        name: _standing(found, days.window, settings.meter.interval)
        for name, found in verdicts.items()
    }
    budgets = {
        name: max(standing.alert_rate, settings.training.alert_budget)
        for name, standing in standings.items()
    }
    report = _inject_faults(
        models, training, days, settings.meter, settings.training, zone, list(budgets.values())
    )
    recalls = {name: _recalls(report, budget) for name, budget in budgets.items()}
    agreement, kappa = _agreement(verdicts) if champion else (None, None)
    standings = {
        name: _with_recall(standing, recalls[name][name], recalls[name].get(RandomAlerts.name))
        for name, standing in standings.items()
    }
    judgement = Judgement(
        champion_version=champion_version,
        champion_trained_to=champion_trained_to.isoformat() if champion_trained_to else "",
        judged_from=days.window.start.isoformat(),
        judged_to=days.window.end.isoformat(),
        machines=int(verdicts[CHALLENGER]["machine_id"].nunique()),
        challenger=standings[CHALLENGER],
        champion=standings.get(CHAMPION),
        baselines={
            name: row["recall"] for name, row in recalls[CHALLENGER].items() if name not in models
        },
        events=_events(report),
        drift=_drift(champion, training),
        missing_machines=_missing(challenger, champion, verdicts[CHALLENGER]),
        alerts_by_machine=_alerts_by_machine(verdicts, settings.meter.interval),
        agreement=agreement,
        kappa=kappa,
    )
    return Compared(_gated(judgement, settings.training, settings.gate), verdicts)


def refusals(judgement: Judgement, training: TrainingSettings, gate: GateSettings) -> list[str]:
    """The reasons for which the challenger must not replace the champion; empty if it may.

    Only what would serve the next week worse refuses: alerts that the budget does not bear, or
    that hardly ever end, faults that are no longer found, machines that are no longer known. Drift
    and disagreement explain, but they refuse nothing: after a change of season or of the plant the
    newer version is right. A first version has nothing to be compared with, so it is never refused.
    """
    challenger, champion = judgement.challenger, judgement.champion
    if judgement.champion_version is None or challenger is None or champion is None:
        return []
    return [
        *_too_many_alerts(judgement, challenger, champion, training, gate),
        *_mostly_abnormal(challenger, champion, gate),
        *_finds_less(judgement, challenger, champion, gate),
        *_misses_machines(judgement, gate),
    ]


# Reasons ---------------------------------------------------------------------


def _too_many_alerts(
    judgement: Judgement,
    challenger: Standing,
    champion: Standing,
    training: TrainingSettings,
    gate: GateSettings,
) -> list[str]:
    most = gate.gate_alert_rate_factor * max(champion.alert_rate, training.alert_budget)
    weeks = judgement.machine_weeks
    if challenger.alert_rate <= most or challenger.alerts <= poisson_bound(most, weeks)[1]:
        return []
    return [
        f"it raises {challenger.alert_rate:.1f} alerts per machine-week, the champion"
        f" {champion.alert_rate:.1f}: at most {most:.1f} are allowed, and chance does not explain"
        f" {challenger.alerts} alerts in {weeks:.1f} machine-weeks"
        " (ANOMALY_GATE_ALERT_RATE_FACTOR)"
    ]


def _mostly_abnormal(challenger: Standing, champion: Standing, gate: GateSettings) -> list[str]:
    """Refuse what hardly ever stops alarming: its alerts are few, and no fault begins one."""
    most = gate.gate_alert_rate_factor * max(champion.anomaly_share, _RARELY)
    if challenger.anomaly_share <= most:
        return []
    return [
        f"it calls {challenger.anomaly_share:.1%} of the readings abnormal, the champion"
        f" {champion.anomaly_share:.1%}: at most {most:.1%} are allowed"
        " (ANOMALY_GATE_ALERT_RATE_FACTOR)"
    ]


def _finds_less(
    judgement: Judgement, challenger: Standing, champion: Standing, gate: GateSettings
) -> list[str]:
    """Refuse by what is found beyond luck: who alarms more finds more. An old champion does not."""
    mine, theirs = challenger.beyond_luck, champion.beyond_luck
    if mine is None or theirs is None or judgement.champion_age > gate.champion_age:
        return []
    interval = challenger.recall_interval
    is_chance = interval is not None and interval[1] >= (champion.recall or 0)
    if theirs - mine <= gate.gate_recall_loss or is_chance:
        return []
    return [
        f"it finds {challenger.recall:.0%} of the injected faults, the champion"
        f" {champion.recall:.0%} (of those that as many random alerts miss: {mine:.0%} and"
        f" {theirs:.0%}): a loss of {gate.gate_recall_loss:.0%} is allowed"
        " (ANOMALY_GATE_RECALL_LOSS)"
    ]


def _misses_machines(judgement: Judgement, gate: GateSettings) -> list[str]:
    missing = judgement.missing_machines
    if not missing or len(missing) <= gate.gate_missing_share * judgement.machines:
        return []
    return [
        f"it does not know {len(missing)} of {judgement.machines} machines that the champion knows"
        f" ({_listed(missing)}): {gate.gate_missing_share:.0%} may be missing"
        " (ANOMALY_GATE_MISSING_SHARE)"
    ]


def _listed(machines: Sequence[int], most: int = 5) -> str:
    more = f" and {len(machines) - most} more" if len(machines) > most else ""
    return ", ".join(map(str, machines[:most])) + more


# Measures --------------------------------------------------------------------


def _standing(verdicts: pd.DataFrame, window: Window, interval: timedelta) -> Standing:
    alarms = verdicts[verdicts["anomaly"] == 1]
    weeks = verdicts["machine_id"].nunique() * ((window.end - window.start) / WEEK)
    alerts = len(group_incidents(alarms, interval))
    share = float(verdicts["anomaly"].mean()) if len(verdicts) else 0.0
    return Standing(alerts, alerts / weeks if weeks else 0.0, share)


def _alerts_by_machine(
    verdicts: Mapping[str, pd.DataFrame], interval: timedelta
) -> dict[str, dict[str, int]]:
    found = {}
    for name, frame in verdicts.items():
        incidents = group_incidents(frame[frame["anomaly"] == 1], interval)
        counts = incidents["machine_id"].value_counts()
        machines = np.unique(frame["machine_id"])
        found[name] = {str(machine): int(counts.get(machine, 0)) for machine in machines}
    return found


def _agreement(verdicts: Mapping[str, pd.DataFrame]) -> tuple[float, float]:
    """Share of readings with the same verdict of both, and Cohen's kappa."""
    one, other = (verdicts[name]["anomaly"].to_numpy() for name in (CHALLENGER, CHAMPION))
    same = float((one == other).mean())
    chance = float(one.mean() * other.mean() + (1 - one.mean()) * (1 - other.mean()))
    return same, (same - chance) / (1 - chance) if chance < 1 else 1.0


def _drift(champion: Model | None, training: pd.DataFrame) -> list[dict[str, Any]]:
    if champion is None:
        return []
    rows = champion.reference.drift(training)
    return [
        {"machine_id": int(machine), "signal": signal, "psi": round(float(psi), 4)}
        for machine, signal, psi in rows.itertuples(index=False)
    ]


def _missing(challenger: Model, champion: Model | None, verdicts: pd.DataFrame) -> list[int]:
    if champion is None:
        return []
    metered = set(verdicts["machine_id"].tolist()) & set(champion.profiles.index.tolist())
    return sorted(metered - set(challenger.profiles.index.tolist()))


def _gated(judgement: Judgement, training: TrainingSettings, gate: GateSettings) -> Judgement:
    return Judgement(**(vars(judgement) | {"reasons": refusals(judgement, training, gate)}))


# Injected faults -------------------------------------------------------------


class ModelContender:
    """A trained model as a contender: it alarms as it would in production."""

    def __init__(self, name: str, model: Model, meter: MeterSettings) -> None:
        self.name = name
        self.model = model
        self.meter = meter
        self._trained_on = 0

    def fit(self, train: pd.DataFrame) -> Self:
        """Learn nothing: the model was trained before."""
        self._trained_on = len(train)
        return self

    def training_scores(self) -> Scored:
        """No scores: the model has its own threshold."""
        return Scored(np.full(self._trained_on, np.nan))

    def score(self, frames: Sequence[pd.DataFrame]) -> list[Scored]:
        """The alarms of each frame, including those of meter faults."""
        return [self._score(frame) for frame in frames]

    def _score(self, frame: pd.DataFrame) -> Scored:
        measured = measured_readings(frame, self.meter)
        everything = np.ones(len(measured), dtype=bool)
        verdicts = verdicts_on(measured, everything, self.model, self.meter)
        faulty = quality_at_once(measured, self.model.profiles, self.meter) >= Quality.STUCK
        alarms = verdicts.loc[verdicts["anomaly"] == 1, ["machine_id", "utc_timestamp"]]
        meters = meter_alarms(measured, faulty, self.meter)
        return Scored(np.full(len(frame), np.nan), pd.concat([alarms, meters], ignore_index=True))


def _inject_faults(
    models: Mapping[str, Model],
    training: pd.DataFrame,
    days: JudgingDays,
    meter: MeterSettings,
    training_settings: TrainingSettings,
    zone: str,
    budgets: Sequence[float],
) -> EvaluationReport | None:
    """Report which model finds faults injected into the judging days.

    None where no fault can be injected. The models have limits of their own; the baselines alarm
    as often as each budget says.
    """
    trial = _trial(training, days, meter, zone)
    if not any(case.events for case in trial.cases):
        return None
    contenders: list[Contender] = [
        *(ModelContender(name, model, meter) for name, model in models.items()),
        RandomAlerts(meter, training_settings, zone),
        AbsoluteChange(meter, training_settings, zone),
        HourOfWeekResidual(meter, training_settings, zone),
    ]
    return run_trials([trial], contenders, meter=meter, budgets=sorted(set(budgets)))


def _trial(training: pd.DataFrame, days: JudgingDays, meter: MeterSettings, zone: str) -> Trial:
    machines = _sample(training)
    train = finite_readings(training[training["machine_id"].isin(machines)])
    shown = finite_readings(days.measured[days.measured["machine_id"].isin(machines)])
    shown = readings_within(shown, days.window.starting_earlier(JUDGING_LOOK_BACK))
    ordinary_days = learn_ordinary_days(train, until=days.window.start, meter=meter, zone=zone)
    cases = [Case(shown, days.window, (), 0, None)]
    for seed in range(_seeds(len(machines), days.window)):
        injected = inject(
            shown,
            window=days.window,
            seed=(0, seed),
            meter=meter,
            zone=zone,
            ordinary_days=ordinary_days,
        )
        cases.append(Case(injected.readings, days.window, injected.events, 0, seed))
    stamps = train["utc_timestamp"]
    weeks = (stamps.max() - stamps.min()) / WEEK if len(train) else 0.0
    return Trial(train, weeks, tuple(cases))


def _seeds(machines: int, window: Window) -> int:
    """Number of injections, so that about `_EVENTS` faults are injected in all."""
    events = (
        sum(EVENTS_PER_WEEK)
        / len(EVENTS_PER_WEEK)
        * machines
        * ((window.end - window.start) / WEEK)
    )
    fewest, most = _SEEDS
    return max(fewest, min(most, math.ceil(_EVENTS / max(events, 1))))


def _sample(training: pd.DataFrame) -> npt.NDArray[np.int64]:
    """Ids of machines that move; of a large fleet an even sample."""
    profiles = profile_machines(training)
    moving = profiles.index[profiles["flat_share"] < MOSTLY_FLAT].to_numpy(np.int64)
    if len(moving) <= _MOST_MACHINES:
        return moving
    return moving[np.linspace(0, len(moving) - 1, _MOST_MACHINES).astype(np.int64)]


def _recalls(report: EvaluationReport | None, budget: float) -> dict[str, dict[str, float | None]]:
    """``recall``, ``low`` and ``high`` by contender, at a budget of the baselines."""
    nothing = {"recall": None, "low": None, "high": None}
    names = (CHALLENGER, CHAMPION)
    if report is None:
        return {name: dict(nothing) for name in names}
    rows = report.summary()
    return {
        str(row["contender"]): {
            "recall": _finite(row["recall"]),
            "low": _finite(row["recall_low"]),
            "high": _finite(row["recall_high"]),
        }
        for row in rows[rows["budget"] == budget].to_dict("records")
    }


def _events(report: EvaluationReport | None) -> int:
    """Number of injected faults."""
    if report is None:
        return 0
    return int(report.summary()["events"].iloc[0])


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _with_recall(
    standing: Standing,
    found: Mapping[str, float | None],
    random: Mapping[str, float | None] | None,
) -> Standing:
    low, high = found["low"], found["high"]
    return replace(
        standing,
        recall=found["recall"],
        recall_interval=(low, high) if low is not None and high is not None else None,
        luck=random["recall"] if random else None,
    )
