"""Replay weekly retraining on past readings: what was trained, refused and raised, per week.

No database: the same functions that train, judge and promote in production, on readings in memory,
and the alerts that each version raises correct the next one's limits as they do there.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from rich.table import Table

from anomaly.detectors.signals.detector import SignalDetector
from anomaly.errors import TrainingError
from anomaly.evaluation.alert_matching import group_incidents
from anomaly.evaluation.our_detector import measured_readings
from anomaly.evaluation.reading_sets import ReadingSet, side_by_side
from anomaly.evaluation.report import plain_table
from anomaly.evaluation.train_test_weeks import JUDGING_LOOK_BACK, WEEK, readings_within
from anomaly.lifecycle.gate import Judgement, JudgingDays, judge_challenger
from anomaly.lifecycle.promotion import NextStep, needs_a_person, next_step
from anomaly.lifecycle.training import RATED, corrected_caution, fit_model
from anomaly.models.model import Model
from anomaly.models.verdicts import verdicts_on
from anomaly.readings.meter_faults import final_quality, in_hindsight, profile_machines
from anomaly.readings.quality import Quality
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
        """Trainings that the gate refused."""
        return sum(bool(week.refusals) for week in self.weeks)

    @property
    def unasked_age(self) -> timedelta:
        """How old the version in force became before anybody was asked about a newer one."""
        oldest = timedelta(0)
        for week in self.weeks:
            if not week.person:
                oldest = max(oldest, week.champion_age)
        return oldest

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
        "of the quietest and loudest machine", "budget", "refused", "a person was asked",
        "oldest training in force, weeks",
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
            f"{one.unasked_age / WEEK:.0f}",
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
    weeks = list(_Replay(chosen, gated).weeks())
    if not weeks:
        days = (FIRST_TRAINING + WEEK) / timedelta(days=1)
        needed = days + chosen.settings.training.judging_days
        raise TrainingError(
            f"set {chosen.name}: its readings end before the first week after the first training:"
            f" {needed:.0f} days are needed, take a longer file"
        )
    return Replay(chosen.name, chosen.settings.training.alert_budget, gated, weeks)


@dataclass(frozen=True)
class _Version:
    """A version, since when it judges, and what it has raised since."""

    number: int
    model: Model
    sound: pd.DataFrame
    trained_to: datetime
    raised: Sequence[Mapping[int, int]] = field(default=())


class _Replay:
    """The replay of one set."""

    def __init__(self, chosen: ReadingSet, gated: bool) -> None:
        self.settings: Settings = chosen.settings
        self.gated = gated
        self.zone = chosen.zone
        self.readings = chosen.readings
        self.first = chosen.readings["utc_timestamp"].min().to_pydatetime()
        self.end = chosen.readings["utc_timestamp"].max().to_pydatetime() + self._interval
        ids = np.unique(chosen.readings["machine_id"].to_numpy())
        unset = {"time_zone": chosen.zone, "alert_budget": np.nan, "holidays": None}
        self.machines = pd.DataFrame(unset, index=pd.Index(ids, name="machine_id"))

    def weeks(self) -> Iterator[ReplayedWeek]:
        """One week after the other."""
        judging = timedelta(days=self.settings.training.judging_days)
        start = self.first + FIRST_TRAINING + judging
        if start + WEEK > self.end:
            return
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
        window = Window(max(start, self.first), end)
        measured = measured_readings(readings_within(self.readings, window), self.settings.meter)
        profiles = profile_machines(measured)
        seen = in_hindsight(measured, profiles, self.settings.meter)
        faulty = final_quality(seen, profiles, self.settings.meter) >= Quality.STUCK
        sound = seen[~faulty].reset_index(drop=True)
        model, _ = fit_model(sound, self.machines, caution, self.settings)
        return _Version(number, model, sound, end)

    def _alerts(self, model: Model, week: Window) -> dict[int, int]:
        """Incidents that the verdicts of a week make, of each machine with readings."""
        days = self._days(week)
        verdicts = verdicts_on(days.measured, days.wanted, model, self.settings.meter)
        incidents = group_incidents(verdicts[verdicts["anomaly"] == 1], self._interval)
        counts = incidents["machine_id"].value_counts()
        machines = np.unique(verdicts["machine_id"].to_numpy()).tolist()
        return {machine: int(counts.get(machine, 0)) for machine in machines}

    def _days(self, window: Window) -> JudgingDays:
        shown = readings_within(self.readings, window.starting_earlier(JUDGING_LOOK_BACK))
        return JudgingDays(measured_readings(shown, self.settings.meter), window)

    def _caution(self, champion: _Version) -> dict[int, float]:
        """As `Trainer.learnt_caution`: corrected by what the version in force has raised."""
        detector = champion.model.detector
        if not isinstance(detector, SignalDetector):
            return {}
        recent = champion.raised[-round(RATED / WEEK) :]
        budget = self.settings.training.alert_budget
        found = {}
        was = dict(zip(detector.usual.machine_ids.tolist(), detector.caution, strict=False))
        for machine, caution in was.items():
            counts = [week[machine] for week in recent if machine in week]
            found[machine] = corrected_caution(float(caution), sum(counts), budget * len(counts))
        return found

    def _judgement(self, challenger: _Version, champion: _Version, end: datetime) -> Judgement:
        days = self._days(Window(challenger.trained_to, end))
        compared = judge_challenger(
            challenger.model,
            champion.model,
            champion.number,
            challenger.sound,
            days,
            self.settings,
            self.zone,
            champion.trained_to,
        )
        return compared.judgement


def _outcome(week: ReplayedWeek) -> str:
    words = {
        NextStep.PROMOTE: "put in force",
        NextStep.KEEP: "refused" if week.refusals else "waits to be put in force by hand",
        NextStep.ASK: "refused, a person is asked" if week.refusals else "a person is asked",
    }[week.step]
    return ": ".join([words, "; ".join(week.refusals)]) if week.refusals else words
