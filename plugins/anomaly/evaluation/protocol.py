"""The evaluation: train on the past, fix thresholds, then judge faults injected into the next week.

Nothing of a test week is shown to a contender before its thresholds are fixed, and
all are cut by one rule: their own scores of training readings, at the alert budget
(unless one brings thresholds of its own, as a product does that is judged as it ships).
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import pandas as pd

from anomaly.errors import AnomalyError
from anomaly.evaluation.field import Cut, Field, Outcome
from anomaly.evaluation.judging import JOIN
from anomaly.evaluation.report import EvaluationReport
from anomaly.evaluation.thresholds import Ladder, ladders
from anomaly.evaluation.trials import SEEDS, Origin, Trial, injected_trials, rolling_origins
from anomaly.settings import Settings

Floats = npt.NDArray[np.float64]

BUDGETS = (0.5, 1.0, 3.0)
"""Alerts a machine-week."""

_SWEPT_BUDGETS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 7.0, 10.0, 15.0)
_SWEPT_BEYOND = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4)


class MissingLibraryError(AnomalyError):
    """A contender needs a library that is not installed; it is left out, with the reason."""


@dataclass(frozen=True)
class Scored:
    """What a contender says of a frame's readings.

    Attributes
    ----------
    score : array of float
        One a row, in the frame's order; higher is more abnormal, NaN is no verdict.
    alarms : DataFrame or None
        ``machine_id`` and ``utc_timestamp`` flagged whatever the threshold (rules, hard
        labels); times at which a reading is missing are allowed.
    """

    score: Floats
    alarms: pd.DataFrame | None = None


class Fitted(Protocol):
    """A contender that has seen its training readings."""

    def training_scores(self) -> Scored:
        """Scores of the training readings, in their order; cross-fitted where it matters."""

    def score(self, frames: Sequence[pd.DataFrame]) -> list[Scored]:
        """Score each frame on its own; they come together only so that it can be fast."""


@runtime_checkable
class Calibrated(Protocol):
    """A fitted contender that brings thresholds of its own, fixed on training readings too."""

    def thresholds(self, budget: float) -> Mapping[int, float]:
        """The score at or above which each machine alarms, for alerts a machine-week."""


class Contender(Protocol):
    """Anything that can be trained on raw long readings and then score others.

    Frames hold ``utc_timestamp``, ``machine_id`` and ``reading``; they are finite, unique
    and sorted by machine and time, and begin `CONTEXT` before the time that is judged.
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
    settings: Settings,
    zone: str = "UTC",
    origins: Sequence[Origin] | None = None,
    seeds: int = SEEDS,
    budgets: Sequence[float] = BUDGETS,
    keep_scores: bool = False,
) -> EvaluationReport:
    """Judge contenders on faults injected into real readings.

    Parameters
    ----------
    readings : DataFrame
        ``utc_timestamp`` (aware), ``machine_id`` and ``reading``: raw, long.
    zone : str
        Where the machines stand.
    origins : sequence of Origin, optional
        Default: `rolling_origins` of the readings.
    seeds : int
        Injections of each origin's test week.
    budgets : sequence of float
        Alerts a machine-week for which thresholds are fixed on training readings.
    keep_scores : bool
        Whether the report holds the scores of the test weeks, for VUS-PR.
    """
    if origins is None:
        origins = rolling_origins(readings, settings=settings)
    trials = injected_trials(readings, origins, settings=settings, zone=zone, seeds=seeds)
    return run(trials, contenders, settings=settings, budgets=budgets, keep_scores=keep_scores)


def run(
    trials: Sequence[Trial],
    contenders: Sequence[Contender],
    *,
    settings: Settings,
    budgets: Sequence[float] = BUDGETS,
    keep_scores: bool = False,
) -> EvaluationReport:
    """Judge contenders on trials; one whose library is missing is left out with the reason."""
    outcomes: list[Outcome] = []
    seconds, skipped = {}, {}
    for contender in contenders:
        begun = time.perf_counter()
        try:
            outcomes += [
                _contend(contender, trial, origin, settings, budgets)
                for origin, trial in enumerate(trials)
            ]
        except MissingLibraryError as reason:
            skipped[contender.name] = str(reason)
        else:
            seconds[contender.name] = time.perf_counter() - begun
    return _report(outcomes, seconds, skipped, keep_scores)


def _contend(
    contender: Contender, trial: Trial, origin: int, settings: Settings, budgets: Sequence[float]
) -> Outcome:
    fitted = contender.fit(trial.train)
    training = fitted.training_scores()
    most = int(max(*budgets, *_SWEPT_BUDGETS) * trial.weeks) + 1
    rungs = ladders(
        trial.train,
        training.score,
        most=most,
        alarms=training.alarms,
        join=max(JOIN, settings.interval),
    )
    own = {
        budget: fitted.thresholds(budget)
        for budget in (*budgets, *_SWEPT_BUDGETS)
        if isinstance(fitted, Calibrated) and budget > 0
    }
    cuts = _cuts(rungs, budgets, trial.weeks, own)
    # Only now, with every threshold fixed, does the contender see readings of the test week.
    scored = fitted.score([case.readings for case in trial.cases])
    field = Field(
        trial.cases,
        [result.score for result in scored],
        [result.alarms for result in scored],
        settings.interval,
    )
    judged = [(cut, field.judge(cut.thresholds)) for cut in cuts]
    return Outcome(contender.name, origin, field, judged)


def _cuts(
    rungs: Mapping[int, Ladder],
    budgets: Sequence[float],
    weeks: float,
    own: Mapping[float, Mapping[int, float]],
) -> list[Cut]:
    def at(budget: float) -> dict[int, float]:
        return {machine: ladder.at(budget, weeks) for machine, ladder in rungs.items()}

    beyond = [
        {machine: ladder.beyond(share) for machine, ladder in rungs.items()}
        for share in _SWEPT_BEYOND
    ]
    swept = [*(own.get(budget) or at(budget) for budget in _SWEPT_BUDGETS), *beyond]
    return [Cut(budget, -1, own.get(budget) or at(budget)) for budget in budgets] + [
        Cut(None, step, thresholds) for step, thresholds in enumerate(swept)
    ]


def _report(
    outcomes: Sequence[Outcome],
    seconds: Mapping[str, float],
    skipped: Mapping[str, str],
    keep_scores: bool,
) -> EvaluationReport:
    steps = pd.concat([outcome.swept() for outcome in outcomes])
    return EvaluationReport(
        events=pd.concat([outcome.events() for outcome in outcomes], ignore_index=True),
        alerts=pd.concat([outcome.alerts() for outcome in outcomes], ignore_index=True),
        swept=steps.groupby(["contender", "step"], sort=False, as_index=False).sum(),
        thresholds=pd.concat([outcome.thresholds() for outcome in outcomes], ignore_index=True),
        contenders=pd.DataFrame(
            {
                "contender": list(seconds),
                "seconds": list(seconds.values()),
            }
        ),
        skipped=pd.DataFrame({"contender": list(skipped), "reason": list(skipped.values())}),
        scores=pd.concat(
            [outcome.field.scores().assign(contender=outcome.contender) for outcome in outcomes]
        )
        if keep_scores
        else None,
    )
