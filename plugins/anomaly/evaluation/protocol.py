"""The protocol: train on the past, fix thresholds, then judge faults injected into the next week.

No reading of a test week is shown to a contender before its thresholds are fixed. All thresholds
follow one rule: the contender's own scores of training readings, at the alert budget. Only a
contender that brings its own thresholds, such as a product judged as it ships, keeps those.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import pandas as pd

from anomaly.arrays import Floats
from anomaly.errors import AnomalyError
from anomaly.evaluation.outcomes import Outcome, ScoredCases, ThresholdSet
from anomaly.evaluation.report import EvaluationReport
from anomaly.evaluation.thresholds import Ladder, ladders
from anomaly.evaluation.train_test_weeks import (
    SEEDS,
    Injector,
    TrainTestSplit,
    Trial,
    injected_trials,
    rolling_splits,
)
from anomaly.settings import MeterSettings

BUDGETS = (0.5, 1.0, 3.0)
"""Alerts per machine and week for which thresholds are fixed unless others are asked for."""

# Points of the sweep: budgets in alerts per machine and week, then thresholds above all training
# scores, by shares of their spread (`Ladder.beyond`). Chosen so that the curves show no corners.
_SWEPT_BUDGETS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 7.0, 10.0, 15.0)
_SWEPT_BEYOND = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4)


class MissingLibraryError(AnomalyError):
    """A contender needs a library that is not installed; it is left out, with the reason."""


@dataclass(frozen=True)
class Scored:
    """A contender's scores and alarms for the readings of a frame.

    Attributes
    ----------
    score : array of float
        One per row, in the frame's order; higher is more abnormal, NaN is no verdict.
    alarms : DataFrame or None
        ``machine_id`` and ``utc_timestamp`` flagged whatever the threshold, by rules for
        instance; times of missing readings are allowed.
    """

    score: Floats
    alarms: pd.DataFrame | None = None


class Fitted(Protocol):
    """A contender that has seen its training readings."""

    def training_scores(self) -> Scored:
        """Scores of the training readings, in their order.

        Cross-fitted where scores of readings that were learnt from would be too low.
        """

    def score(self, frames: Sequence[pd.DataFrame]) -> list[Scored]:
        """Score each frame on its own; they come together only to save time."""


@runtime_checkable
class Calibrated(Protocol):
    """A fitted contender that brings its own thresholds, also fixed on training readings."""

    def thresholds(self, budget: float) -> Mapping[int, float]:
        """The score at or above which each machine alarms; `budget` is per machine and week."""


class Contender(Protocol):
    """Anything that can be trained on raw long readings and then score others.

    Frames hold ``utc_timestamp``, ``machine_id`` and ``reading``; they are finite, unique
    and sorted by machine and time, and begin `JUDGING_LOOK_BACK` before the time that is judged.
    """

    @property
    def name(self) -> str:
        """What the table calls it."""

    def fit(self, train: pd.DataFrame) -> Fitted:
        """Learn from training readings; may raise `MissingLibraryError`."""


def evaluate(
    readings: pd.DataFrame,
    contenders: Sequence[Contender],
    *,
    meter: MeterSettings,
    zone: str = "UTC",
    splits: Sequence[TrainTestSplit] | None = None,
    seeds: int = SEEDS,
    budgets: Sequence[float] = BUDGETS,
    keep_scores: bool = False,
    injector: Injector = Injector.CURVE,
) -> EvaluationReport:
    """Judge contenders on faults injected into real readings.

    Parameters
    ----------
    readings : DataFrame
        ``utc_timestamp`` (aware), ``machine_id`` and ``reading``: raw, long.
    zone : str
        Where the machines stand.
    splits : sequence of TrainTestSplit, optional
        Default: `rolling_splits` of the readings.
    seeds : int
        Injections per test week.
    budgets : sequence of float
        Alerts per machine and week for which thresholds are fixed on training readings.
    keep_scores : bool
        Whether the report holds the scores of the test weeks, for VUS-PR.
    injector : Injector
        Who writes the faults.
    """
    if splits is None:
        splits = rolling_splits(readings, meter=meter)
    trials = injected_trials(
        readings, splits, meter=meter, zone=zone, seeds=seeds, injector=injector
    )
    return run_trials(trials, contenders, meter=meter, budgets=budgets, keep_scores=keep_scores)


def run_trials(
    trials: Sequence[Trial],
    contenders: Sequence[Contender],
    *,
    meter: MeterSettings,
    budgets: Sequence[float] = BUDGETS,
    keep_scores: bool = False,
) -> EvaluationReport:
    """Judge contenders on trials; one whose library is missing is left out, with the reason."""
    outcomes: list[Outcome] = []
    seconds, skipped = {}, {}
    for contender in contenders:
        begun = time.perf_counter()
        try:
            outcomes += [
                _outcome(contender, trial, split, meter, budgets)
                for split, trial in enumerate(trials)
            ]
        except MissingLibraryError as reason:
            skipped[contender.name] = str(reason)
        else:
            seconds[contender.name] = time.perf_counter() - begun
    return _report(outcomes, seconds, skipped, keep_scores)


def _outcome(
    contender: Contender, trial: Trial, split: int, meter: MeterSettings, budgets: Sequence[float]
) -> Outcome:
    fitted = contender.fit(trial.train)
    training = fitted.training_scores()
    most = int(max(*budgets, *_SWEPT_BUDGETS) * trial.weeks) + 1
    rungs = ladders(
        trial.train, training.score, most=most, interval=meter.interval, alarms=training.alarms
    )
    own = {
        budget: fitted.thresholds(budget)
        for budget in (*budgets, *_SWEPT_BUDGETS)
        if isinstance(fitted, Calibrated) and budget > 0
    }
    chosen = _threshold_sets(rungs, budgets, trial.weeks, own)
    # All thresholds are fixed now. Only after this line may the contender see the test week.
    scored = fitted.score([case.readings for case in trial.cases])
    cases = ScoredCases(
        trial.cases,
        [result.score for result in scored],
        [result.alarms for result in scored],
        meter.interval,
    )
    matched = [(one, cases.match_alerts(one.thresholds)) for one in chosen]
    return Outcome(contender.name, split, cases, matched)


def _threshold_sets(
    rungs: Mapping[int, Ladder],
    budgets: Sequence[float],
    weeks: float,
    own: Mapping[float, Mapping[int, float]],
) -> list[ThresholdSet]:
    """The thresholds of each budget, then of each point of the sweep."""

    def at(budget: float) -> dict[int, float]:
        return {machine: ladder.at(budget, weeks) for machine, ladder in rungs.items()}

    beyond = [
        {machine: ladder.beyond(share) for machine, ladder in rungs.items()}
        for share in _SWEPT_BEYOND
    ]
    swept = [*(own.get(budget) or at(budget) for budget in _SWEPT_BUDGETS), *beyond]
    return [ThresholdSet(budget, -1, own.get(budget) or at(budget)) for budget in budgets] + [
        ThresholdSet(None, point, thresholds) for point, thresholds in enumerate(swept)
    ]


def _report(
    outcomes: Sequence[Outcome],
    seconds: Mapping[str, float],
    skipped: Mapping[str, str],
    keep_scores: bool,
) -> EvaluationReport:
    swept = pd.concat([outcome.swept() for outcome in outcomes])
    return EvaluationReport(
        events=pd.concat([outcome.events() for outcome in outcomes], ignore_index=True),
        alerts=pd.concat([outcome.alerts() for outcome in outcomes], ignore_index=True),
        swept=swept.groupby(["contender", "step"], sort=False, as_index=False).sum(),
        thresholds=pd.concat([outcome.thresholds() for outcome in outcomes], ignore_index=True),
        contenders=pd.DataFrame(
            {
                "contender": list(seconds),
                "seconds": list(seconds.values()),
            }
        ),
        skipped=pd.DataFrame({"contender": list(skipped), "reason": list(skipped.values())}),
        scores=pd.concat(
            [outcome.cases.scores().assign(contender=outcome.contender) for outcome in outcomes]
        )
        if keep_scores
        else None,
    )
