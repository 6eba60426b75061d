"""Replay weekly retraining on past readings: what was trained, refused and raised, per week.

No database: the same functions that train, judge and promote in production, on readings in memory,
and the alerts that each version raises correct the next one's limits as they do there.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from rich.table import Table

from anomaly.errors import TrainingError
from anomaly.evaluation.alert_matching import group_incidents
from anomaly.evaluation.our_detector import measured_readings
from anomaly.evaluation.reading_sets import ReadingSet, named, side_by_side
from anomaly.evaluation.report import plain_table
from anomaly.evaluation.train_test_weeks import JUDGING_LOOK_BACK, WEEK, readings_within
from anomaly.lifecycle.gate import InForce, Judgement, JudgingDays, judge_on_new_days
from anomaly.lifecycle.promotion import NextStep, needs_a_person, next_step
from anomaly.lifecycle.training import RATED, corrected_caution, fit_model, sound_readings
from anomaly.models.model import Model
from anomaly.models.verdicts import verdicts_on
from anomaly.settings import Settings
from anomaly.windows import Window

FIRST_TRAINING = timedelta(weeks=4)
"""Readings that the first version is trained on: a deployment in its second month."""


@dataclass(frozen=True)
class ReplayedWeek:
    """A week, the version that judged it, and the training at its end.

    Attributes
    ----------
    start : datetime
        Of the week.
    in_force : int
        The version that judged its readings.
    champion_age : timedelta
        Time from the end of that version's training to the end of the week.
    alerts : mapping of int to int
        Incidents of each machine that the week's verdicts make.
    trained : int
        The version that was trained at the end of the week.
    step : NextStep
        What became of it.
    refusals : sequence of str
        Why the gate refused it; empty: it did not.
    person : str
        Why a person was asked; empty: nobody was.
    """

    start: datetime
    in_force: int
    champion_age: timedelta
    alerts: Mapping[int, int]
    trained: int
    step: NextStep
    refusals: Sequence[str] = ()
    person: str = ""

    @property
    def alert_rate(self) -> float:
        """Alerts per machine-week."""
        return sum(self.alerts.values()) / max(len(self.alerts), 1)


@dataclass(frozen=True)
class Replay:
    """The weeks of one set.

    Attributes
    ----------
    name : str
        Of the set.
    budget : float
        Alerts per machine and week.
    gated : bool
        Whether the gate could refuse a version.
    """

    name: str
    budget: float
    gated: bool
    weeks: Sequence[ReplayedWeek]

    @property
    def alert_rate(self) -> float:
        """Alerts per machine-week, over all weeks."""
        machines = sum(len(week.alerts) for week in self.weeks)
        return sum(sum(week.alerts.values()) for week in self.weeks) / max(machines, 1)

    def by_machine(self) -> dict[int, float]:
        """Alerts per week of each machine."""
        counts = pd.DataFrame([dict(week.alerts) for week in self.weeks])
        return {int(str(machine)): float(rate) for machine, rate in counts.mean().items()}

    @property
    def refused(self) -> int:
        """Trainings that the gate refused, or would have."""
        return sum(bool(week.refusals) for week in self.weeks)

    @property
    def oldest(self) -> timedelta:
        """How old the training in force became."""
        return max(week.champion_age for week in self.weeks)

    @property
    def oldest_unasked(self) -> timedelta:
        """How old it became while nobody had been asked about a newer version."""
        unasked = [week.champion_age for week in self.weeks if not week.person]
        return max(unasked, default=timedelta(0))

    def table(self) -> Table:
        """One row per week."""
        title = f"{self.name}: weekly retraining, {'with' if self.gated else 'without'} the gate"
        table = plain_table(
            title, "week of", "version in force", "weeks since its training", "alerts",
            "per machine-week", "budget", "newly trained", "then",
        )  # fmt: skip
        table.columns[-1].justify = "left"
        for week in self.weeks:
            table.add_row(
                f"{week.start:%Y-%m-%d}",
                str(week.in_force),
                f"{week.champion_age / WEEK:.0f}",
                str(sum(week.alerts.values())),
                f"{week.alert_rate:.2f}",
                f"{self.budget:g}",
                str(week.trained),
                _outcome(week),
            )
        return table

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "set": self.name,
            "gate": self.gated,
            "budget": self.budget,
            "alert_rate": self.alert_rate,
            "alert_rate_by_machine": self.by_machine(),
            "refused": self.refused,
            "oldest_weeks": self.oldest / WEEK,
            "oldest_unasked_weeks": self.oldest_unasked / WEEK,
            "weeks": [
                vars(week)
                | {"champion_age": week.champion_age / WEEK, "alert_rate": week.alert_rate}
                for week in self.weeks
            ],
        }


def summary(replays: Sequence[Replay]) -> Table:
    """One row per replay."""
    table = plain_table(
        "Weekly retraining", "set", "gate", "weeks", "machine-weeks", "alerts per machine-week",
        "of the quietest and loudest machine", "budget",
        "refused, or would be without --no-gate", "a person was asked",
        "oldest training in force, weeks", "while nobody was asked",
    )  # fmt: skip
    for one in replays:
        rates = one.by_machine().values()
        table.add_row(
            one.name,
            "on" if one.gated else "off",
            str(len(one.weeks)),
            str(sum(len(week.alerts) for week in one.weeks)),
            f"{one.alert_rate:.2f}",
            f"{min(rates):.2f}, {max(rates):.2f}",
            f"{one.budget:g}",
            str(one.refused),
            str(sum(bool(week.person) for week in one.weeks)),
            f"{one.oldest / WEEK:.0f}",
            f"{one.oldest_unasked / WEEK:.0f}",
        )
    return table


def replay_sets(sets: Sequence[ReadingSet], *, gated: bool = True) -> list[Replay]:
    """Replay each set, side by side on all processors.

    Raises
    ------
    TrainingError
        When a set is too short.
    """
    return side_by_side(partial(replay, gated=gated), [(chosen,) for chosen in sets])


def replay(chosen: ReadingSet, *, gated: bool = True) -> Replay:
    """Retrain every week on the readings of a set, and let the version in force judge the next.

    The first version is trained on `FIRST_TRAINING`. Nobody answers when a person is asked: the
    version in force stays.

    Parameters
    ----------
    gated : bool
        False: every version is put in force, whatever the gate would say.

    Raises
    ------
    TrainingError
        When the readings are too short for a week after the first training.
    """
    with named(chosen.name):
        weeks = list(_Replay(chosen, gated).weeks())
    return Replay(chosen.name, chosen.settings.training.alert_budget, gated, weeks)


@dataclass(frozen=True)
class _Version:
    """A version, since when it judges, and what it has raised since."""

    number: int
    model: Model
    sound: pd.DataFrame
    trained_to: datetime
    raised: Sequence[Mapping[int, int]] = ()


class _Replay:
    """The replay of one set."""

    def __init__(self, chosen: ReadingSet, gated: bool) -> None:
        self.settings: Settings = chosen.settings
        self.gated = gated
        self.zone = chosen.zone
        self.readings = chosen.readings
        self.first = chosen.readings["utc_timestamp"].min().to_pydatetime()
        self.end = chosen.readings["utc_timestamp"].max().to_pydatetime() + self._interval
        self.machines = chosen.known_machines
        budgets = self.machines.set_index("machine_id")["alert_budget"].astype(float)
        self.budgets = budgets.fillna(self.settings.training.alert_budget).to_dict()

    def weeks(self) -> Iterator[ReplayedWeek]:
        """One week after the other."""
        judging = timedelta(days=self.settings.training.judging_days)
        start = self.first + FIRST_TRAINING + judging
        self._require_readings(start + WEEK)
        champion = self._train(1, start - judging, {})
        refused, number = 0, 1
        while start + WEEK <= self.end:
            week, number = Window(start, start + WEEK), number + 1
            alerts = self._alerts(champion.model, week)
            champion = replace(champion, raised=[*champion.raised, alerts])
            challenger = self._train(number, week.end - judging, self._caution(champion))
            judgement = self._judgement(challenger, champion, week.end)
            refused = 0 if judgement.passed else refused + 1
            step = next_step(judgement, self.settings.gate, refused)
            yield ReplayedWeek(
                start=start,
                in_force=champion.number,
                champion_age=week.end - champion.trained_to,
                alerts=alerts,
                trained=number,
                step=step if self.gated else NextStep.PROMOTE,
                refusals=judgement.reasons,
                person=self._person(step, judgement, refused),
            )
            if step is NextStep.PROMOTE or not self.gated:
                champion = challenger
            start = week.end

    def _require_readings(self, end: datetime) -> None:
        if end > self.end:
            needed, there = (moment - self.first for moment in (end, self.end))
            day = timedelta(days=1)
            raise TrainingError(
                "its readings end before the first week after the first training: they last"
                f" {there / day:.1f} days, and {needed / day:.0f} are needed: take a longer file"
            )
        if missing := self.settings.training.missing_history(FIRST_TRAINING / timedelta(days=1)):
            raise TrainingError(missing)

    def _person(self, step: NextStep, judgement: Judgement, refused: int) -> str:
        """Why a person is asked; empty where nobody is."""
        if not self.gated or step is not NextStep.ASK:
            return ""
        gate = self.settings.gate
        return needs_a_person(judgement, gate, refused) or "ANOMALY_PROMOTION is approve"

    @property
    def _interval(self) -> timedelta:
        return self.settings.meter.interval

    def _train(self, number: int, end: datetime, caution: Mapping[int, float]) -> _Version:
        start = end - timedelta(weeks=self.settings.training.training_weeks)
        measured = self._measured(Window(max(start, self.first), end))
        everything = np.ones(len(measured), dtype=bool)
        seen, sound = sound_readings(measured, everything, self.settings.meter)
        kept = seen[sound].reset_index(drop=True)
        machines = self.machines.set_index("machine_id")
        model, _ = fit_model(kept, machines, caution, self.settings)
        return _Version(number, model, kept, end)

    def _measured(self, window: Window) -> pd.DataFrame:
        readings = readings_within(self.readings, window)
        return measured_readings(readings, self.settings.meter, self.machines)

    def _alerts(self, model: Model, week: Window) -> dict[int, int]:
        """Incidents that the verdicts of a week make, of each machine with readings."""
        days = self._days(week)
        verdicts = verdicts_on(days.measured, days.wanted, model, self.settings.meter)
        incidents = group_incidents(verdicts[verdicts["anomaly"] == 1], self._interval)
        counts = incidents["machine_id"].value_counts()
        machines = np.unique(verdicts["machine_id"].to_numpy()).tolist()
        return {machine: int(counts.get(machine, 0)) for machine in machines}

    def _days(self, window: Window) -> JudgingDays:
        return JudgingDays(self._measured(window.starting_earlier(JUDGING_LOOK_BACK)), window)

    def _caution(self, champion: _Version) -> dict[int, float]:
        """Corrected by what the version in force has raised in the last weeks."""
        recent = champion.raised[-round(RATED / WEEK) :]
        machines = {machine for week in recent for machine in week}
        counts = {m: [week[m] for week in recent if m in week] for m in machines}
        counted = {m: (sum(found), self.budgets[m] * len(found)) for m, found in counts.items()}
        return corrected_caution(champion.model, counted)

    def _judgement(self, challenger: _Version, champion: _Version, end: datetime) -> Judgement:
        return judge_on_new_days(
            challenger.model,
            challenger.sound,
            challenger.trained_to,
            InForce(champion.number, champion.model, champion.trained_to),
            end,
            self._days,
            self.settings,
            self.zone,
        ).judgement


def _outcome(week: ReplayedWeek) -> str:
    words = {
        NextStep.PROMOTE: "put in force",
        NextStep.KEEP: "refused" if week.refusals else "waits to be put in force by hand",
        NextStep.ASK: "refused, a person is asked" if week.refusals else "a person is asked",
    }[week.step]
    return ": ".join([words, "; ".join(week.refusals)]) if week.refusals else words
