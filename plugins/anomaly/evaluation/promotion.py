"""The judgement on a new version: challenger against champion, on readings neither has seen.

Pure functions of two models and readings; what they say is stored with the version.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from anomaly.evaluation.contenders import AbsoluteChange, HourOfWeekResidual, RandomAlerts
from anomaly.evaluation.habits import learn_habits
from anomaly.evaluation.injection import EVENTS_A_WEEK, inject
from anomaly.evaluation.judging import group_incidents
from anomaly.evaluation.product import measured_readings, meter_alarms
from anomaly.evaluation.protocol import Contender, Scored, run
from anomaly.evaluation.report import EvaluationReport
from anomaly.evaluation.trials import CONTEXT, WEEK, Case, Trial, tidy, within
from anomaly.model import Model, judge_readings
from anomaly.quality import judge_at_once, profile
from anomaly.schema import Quality
from anomaly.settings import Settings
from anomaly.windows import Window

CHALLENGER, CHAMPION = "challenger", "champion"
SHORTEST = timedelta(days=1)
"""Fewer readings than this judge nothing."""

_SEEDS = (2, 60)  # fewest and most injections of the judging days
_EVENTS = 200  # about so many are wanted, whatever the number of machines and days
_MOST_MACHINES = 50  # of a fleet, evenly drawn, faults are injected into
_STILL = 0.9  # a machine flat more often than this has nothing to find


@dataclass(frozen=True)
class Standing:
    """How one model does on the judging days.

    Attributes
    ----------
    alerts : int
        Incidents: alarms of a machine no more than an hour apart.
    alert_rate : float
        A machine-week.
    anomaly_share : float
        Of readings.
    recall : float or None
        Share of injected faults found; None where none could be injected.
    recall_interval : tuple of float or None
        95 %, over injections.
    """

    alerts: int
    alert_rate: float
    anomaly_share: float
    recall: float | None = None
    recall_interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Judgement:
    """What the judge found; `reasons` say why a challenger is refused, none: it is not.

    Attributes
    ----------
    champion_version : int or None
        The version it was compared with; None where none was in force.
    judged_from, judged_to : str
        The judging days, ISO 8601; empty where nothing could be judged.
    agreement : float or None
        Share of readings on which both say the same.
    kappa : float or None
        Cohen's: the same beyond what chance gives.
    baselines : mapping of str to float or None
        Recall of plain baselines, at the challenger's own alert rate.
    events : int
        Faults injected.
    drift : list of mapping
        ``machine_id``, ``signal`` and ``psi`` between the two training windows.
    missing_machines : list of int
        Metered on the judging days and known to the champion, not to the challenger.
    alerts_by_machine : mapping
        Challenger's and champion's incidents a machine.
    """

    champion_version: int | None
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
        """Whether the gate lets the challenger through."""
        return not self.reasons

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for the database and JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Compared:
    """A judgement, and the verdicts it rests on, for pictures.

    Attributes
    ----------
    verdicts : mapping of str to DataFrame
        The challenger's and the champion's, on the same readings.
    """

    judgement: Judgement
    verdicts: Mapping[str, pd.DataFrame]


@dataclass(frozen=True)
class JudgingDays:
    """Readings that judge: measured, with what precedes them.

    Attributes
    ----------
    measured : DataFrame
        As `anomaly.quality.measure` returns it.
    window : Window
        The days that count.
    """

    measured: pd.DataFrame
    window: Window

    @property
    def wanted(self) -> npt.NDArray[np.bool_]:
        """Which rows are of the judging days."""
        stamps = self.measured["utc_timestamp"]
        return ((stamps >= self.window.start) & (stamps < self.window.end)).to_numpy()


def compare(
    challenger: Model,
    champion: Model | None,
    champion_version: int | None,
    training: pd.DataFrame,
    days: JudgingDays,
    settings: Settings,
    zone: str = "UTC",
) -> Compared:
    """Judge a challenger, beside the champion where there is one.

    Parameters
    ----------
    training : DataFrame
        The challenger's training readings, measured.
    zone : str
        Where the machines stand, for injected faults.
    """
    models = {CHALLENGER: challenger} | ({CHAMPION: champion} if champion else {})
    verdicts = {
        name: judge_readings(days.measured, days.wanted, model, settings)
        for name, model in models.items()
    }
    standings = {name: _standing(found, days.window) for name, found in verdicts.items()}
    report = _inject_faults(models, training, days, settings, zone, standings[CHALLENGER])
    recalls = _recalls(report)
    agreement, kappa = _agreement(verdicts) if champion else (None, None)
    standings = {
        name: _with_recall(standing, recalls[name]) for name, standing in standings.items()
    }
    judgement = Judgement(
        champion_version=champion_version,
        judged_from=days.window.start.isoformat(),
        judged_to=days.window.end.isoformat(),
        machines=int(verdicts[CHALLENGER]["machine_id"].nunique()),
        challenger=standings[CHALLENGER],
        champion=standings.get(CHAMPION),
        baselines={name: row["recall"] for name, row in recalls.items() if name not in models},
        events=int(report.events["found"].size / len(recalls)) if report else 0,
        drift=_drift(champion, training),
        missing_machines=_missing(challenger, champion, verdicts[CHALLENGER]),
        alerts_by_machine=_alerts_by_machine(verdicts),
        agreement=agreement,
        kappa=kappa,
    )
    return Compared(_gated(judgement, settings), verdicts)


def refusals(judgement: Judgement, settings: Settings) -> list[str]:
    """Why the challenger must not replace the champion, in words; empty: it may.

    A first version has nothing to be compared with, and is never refused.
    """
    challenger, champion = judgement.challenger, judgement.champion
    if judgement.champion_version is None or challenger is None or champion is None:
        return []
    return [
        *_too_many_alerts(challenger, champion, settings),
        *_finds_less(challenger, champion, settings),
        *_disagrees(judgement, settings),
        *_drifted(judgement, settings),
        *_misses_machines(judgement, settings),
    ]


# Reasons ---------------------------------------------------------------------


def _too_many_alerts(challenger: Standing, champion: Standing, settings: Settings) -> list[str]:
    most = settings.gate_alert_rate_factor * max(champion.alert_rate, settings.alert_budget)
    if challenger.alert_rate <= most:
        return []
    return [
        f"it raises {challenger.alert_rate:.1f} alerts a machine-week, the champion"
        f" {champion.alert_rate:.1f}: at most {most:.1f} are allowed"
        " (ANOMALY_GATE_ALERT_RATE_FACTOR)"
    ]


def _finds_less(challenger: Standing, champion: Standing, settings: Settings) -> list[str]:
    if challenger.recall is None or champion.recall is None:
        return []
    loss = champion.recall - challenger.recall
    if loss <= settings.gate_recall_loss:
        return []
    return [
        f"it finds {challenger.recall:.0%} of the injected faults, the champion"
        f" {champion.recall:.0%}: a loss of {settings.gate_recall_loss:.0%} is allowed"
        " (ANOMALY_GATE_RECALL_LOSS)"
    ]


def _disagrees(judgement: Judgement, settings: Settings) -> list[str]:
    if judgement.agreement is None or judgement.agreement >= settings.gate_agreement:
        return []
    return [
        f"it agrees with the champion on {judgement.agreement:.1%} of the readings:"
        f" at least {settings.gate_agreement:.1%} is asked (ANOMALY_GATE_AGREEMENT)"
    ]


def _drifted(judgement: Judgement, settings: Settings) -> list[str]:
    beyond = [row for row in judgement.drift if row["psi"] > settings.gate_psi]
    machines = sorted({row["machine_id"] for row in beyond})
    known = {row["machine_id"] for row in judgement.drift}
    if not machines or len(machines) <= settings.gate_drifted_share * len(known):
        return []
    worst = max(beyond, key=lambda row: row["psi"])
    return [
        f"its training readings differ from the champion's on {len(machines)} of {len(known)}"
        f" machines ({_listed(machines)}), most in {worst['signal']} of machine"
        f" {worst['machine_id']} (PSI {worst['psi']:.2f}, above {settings.gate_psi:g} is drift):"
        f" {settings.gate_drifted_share:.0%} of the machines may drift"
        " (ANOMALY_GATE_PSI, ANOMALY_GATE_DRIFTED_SHARE)"
    ]


def _misses_machines(judgement: Judgement, settings: Settings) -> list[str]:
    missing = judgement.missing_machines
    if not missing or len(missing) <= settings.gate_missing_share * judgement.machines:
        return []
    return [
        f"it does not know {len(missing)} of {judgement.machines} machines that the champion knows"
        f" ({_listed(missing)}): {settings.gate_missing_share:.0%} may be missing"
        " (ANOMALY_GATE_MISSING_SHARE)"
    ]


def _listed(machines: Sequence[int], most: int = 5) -> str:
    more = f" and {len(machines) - most} more" if len(machines) > most else ""
    return ", ".join(map(str, machines[:most])) + more


# Measures --------------------------------------------------------------------


def _standing(verdicts: pd.DataFrame, window: Window) -> Standing:
    alarms = verdicts[verdicts["anomaly"] == 1]
    weeks = verdicts["machine_id"].nunique() * ((window.end - window.start) / WEEK)
    alerts = len(group_incidents(alarms))
    share = float(verdicts["anomaly"].mean()) if len(verdicts) else 0.0
    return Standing(alerts, alerts / weeks if weeks else 0.0, share)


def _alerts_by_machine(verdicts: Mapping[str, pd.DataFrame]) -> dict[str, dict[str, int]]:
    found = {}
    for name, frame in verdicts.items():
        counts = group_incidents(frame[frame["anomaly"] == 1])["machine_id"].value_counts()
        machines = np.unique(frame["machine_id"])
        found[name] = {str(machine): int(counts.get(machine, 0)) for machine in machines}
    return found


def _agreement(verdicts: Mapping[str, pd.DataFrame]) -> tuple[float, float]:
    """Share of readings on which both say the same, and Cohen's kappa."""
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


def _gated(judgement: Judgement, settings: Settings) -> Judgement:
    return Judgement(**(vars(judgement) | {"reasons": refusals(judgement, settings)}))


# Injected faults -------------------------------------------------------------


class Shipped:
    """A trained model as a contender: it alarms as it would in production."""

    def __init__(self, name: str, model: Model, settings: Settings) -> None:
        self.name = name
        self.model = model
        self.settings = settings
        self._trained_on = 0

    def fit(self, train: pd.DataFrame) -> Self:
        """Learn nothing: the model is what is judged."""
        self._trained_on = len(train)
        return self

    def training_scores(self) -> Scored:
        """None: it brings its own threshold."""
        return Scored(np.full(self._trained_on, np.nan))

    def score(self, frames: Sequence[pd.DataFrame]) -> list[Scored]:
        """Alarms of each frame, meter faults included."""
        return [self._score(frame) for frame in frames]

    def _score(self, frame: pd.DataFrame) -> Scored:
        measured = measured_readings(frame, self.settings)
        everything = np.ones(len(measured), dtype=bool)
        verdicts = judge_readings(measured, everything, self.model, self.settings)
        faulty = judge_at_once(measured, self.model.profiles, self.settings) >= Quality.STUCK
        alarms = verdicts.loc[verdicts["anomaly"] == 1, ["machine_id", "utc_timestamp"]]
        meters = meter_alarms(measured, faulty, self.settings)
        return Scored(np.full(len(frame), np.nan), pd.concat([alarms, meters], ignore_index=True))


def _inject_faults(
    models: Mapping[str, Model],
    training: pd.DataFrame,
    days: JudgingDays,
    settings: Settings,
    zone: str,
    standing: Standing,
) -> EvaluationReport | None:
    """Who finds faults written into the judging days; None where none can be written."""
    trial = _trial(training, days, settings, zone)
    if not any(case.events for case in trial.cases):
        return None
    contenders: list[Contender] = [
        *(Shipped(name, model, settings) for name, model in models.items()),
        RandomAlerts(settings, zone),
        AbsoluteChange(settings, zone),
        HourOfWeekResidual(settings, zone),
    ]
    budget = max(standing.alert_rate, settings.alert_budget)
    return run([trial], contenders, settings=settings, budgets=(budget,))


def _trial(training: pd.DataFrame, days: JudgingDays, settings: Settings, zone: str) -> Trial:
    machines = _sample(training)
    train = tidy(training[training["machine_id"].isin(machines)])
    shown = tidy(days.measured[days.measured["machine_id"].isin(machines)])
    shown = within(shown, days.window.starting_earlier(CONTEXT))
    habits = learn_habits(train, until=days.window.start, settings=settings, zone=zone)
    cases = [Case(shown, days.window, (), 0, None)]
    for seed in range(_seeds(len(machines), days.window)):
        injected = inject(
            shown, window=days.window, seed=(0, seed), settings=settings, zone=zone, habits=habits
        )
        cases.append(Case(injected.readings, days.window, injected.events, 0, seed))
    stamps = train["utc_timestamp"]
    weeks = (stamps.max() - stamps.min()) / WEEK if len(train) else 0.0
    return Trial(train, weeks, tuple(cases))


def _seeds(machines: int, window: Window) -> int:
    events = (
        sum(EVENTS_A_WEEK) / len(EVENTS_A_WEEK) * machines * ((window.end - window.start) / WEEK)
    )
    fewest, most = _SEEDS
    return max(fewest, min(most, math.ceil(_EVENTS / max(events, 1))))


def _sample(training: pd.DataFrame) -> npt.NDArray[np.int64]:
    """Machines that move, of a large fleet an even sample."""
    profiles = profile(training)
    moving = profiles.index[profiles["flat_share"] < _STILL].to_numpy(np.int64)
    if len(moving) <= _MOST_MACHINES:
        return moving
    return moving[np.linspace(0, len(moving) - 1, _MOST_MACHINES).astype(np.int64)]


def _recalls(report: EvaluationReport | None) -> dict[str, dict[str, float | None]]:
    """``recall``, ``low`` and ``high`` by contender."""
    nothing = {"recall": None, "low": None, "high": None}
    names = (CHALLENGER, CHAMPION)
    if report is None:
        return {name: dict(nothing) for name in names}
    rows = report.summary().set_index("contender")
    return {
        str(name): {
            "recall": _finite(row["recall"]),
            "low": _finite(row["recall_low"]),
            "high": _finite(row["recall_high"]),
        }
        for name, row in rows.iterrows()
    }


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _with_recall(standing: Standing, found: Mapping[str, float | None]) -> Standing:
    low, high = found["low"], found["high"]
    interval = (low, high) if low is not None and high is not None else None
    return Standing(
        standing.alerts,
        standing.alert_rate,
        standing.anomaly_share,
        found["recall"],
        interval,
    )
