"""All cases of a trial side by side, so that one call judges every seed of a test week."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

import numpy as np
import numpy.typing as npt
import pandas as pd

from anomaly.evaluation.judging import GRACE, JOIN, Judgement, judge
from anomaly.evaluation.trials import WEEK, Case
from anomaly.steps import microseconds
from anomaly.windows import Window

Floats = npt.NDArray[np.float64]


class Field:
    """Scores and hard alarms of a trial's cases; each machine of each case has its own lane.

    Parameters
    ----------
    scores : sequence of array
        One a case, aligned with its readings.
    alarms : sequence of DataFrame or None
        One a case: ``machine_id`` and ``utc_timestamp`` alarmed at any threshold.
    interval : timedelta
        Of the meter: alarms are joined, and grace lasts, no shorter than it.

    Attributes
    ----------
    lanes : DataFrame
        ``case, week, seed, machine_id, machine_weeks``; the index is the lane.
    rows, hard : DataFrame
        ``lane, machine_id, utc_timestamp`` of what lies in the cases' windows:
        readings with their ``score``, and hard alarms.
    events : list of Event
        Those of all cases, with their lane for a machine.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        scores: Sequence[Floats],
        alarms: Sequence[pd.DataFrame | None],
        interval: timedelta,
    ) -> None:
        self.interval = interval
        self.lanes = _lanes(cases)
        rows = [
            case.readings[["machine_id", "utc_timestamp"]].assign(score=score)
            for case, score in zip(cases, scores, strict=True)
        ]
        hard = [rows[0][:0] if frame is None else frame for frame in alarms]
        self.rows = self._inside(cases, rows)
        self.hard = self._inside(cases, hard)
        numbers = self.lanes.reset_index().set_index(["case", "machine_id"])["index"]
        self.events = [
            replace(event, machine_id=int(numbers[number, event.machine_id]))
            for number, case in enumerate(cases)
            for event in case.events
        ]
        starts, ends = ([getattr(case.window, name) for case in cases] for name in ("start", "end"))
        self._window = Window(min(starts), max(ends))

    def judge(self, thresholds: Mapping[int, float]) -> Judgement:
        """Judge all lanes at each machine's threshold; a machine without one is silent."""
        machines, place = np.unique(self.rows["machine_id"].to_numpy(), return_inverse=True)
        limits = np.array([thresholds.get(machine, np.inf) for machine in machines.tolist()])
        flagged = self.rows[self.rows["score"].to_numpy() >= limits[place]]
        both = pd.concat([flagged, self.hard]) if len(self.hard) else flagged
        alarms = pd.DataFrame(
            {"machine_id": both["lane"].to_numpy(), "utc_timestamp": both["utc_timestamp"].array}
        )
        lanes = list(range(len(self.lanes)))
        join, grace = max(JOIN, self.interval), max(GRACE, self.interval)
        return judge(alarms, self.events, self._window, lanes, join=join, grace=grace)

    def scores(self) -> pd.DataFrame:
        """Whether each reading of the injected lanes is faulty, and how abnormal it is called.

        Returns
        -------
        DataFrame
            ``week, seed, machine_id, faulty, score``, in the order of cases, machines and time.
            No verdict counts as the least abnormal, a hard alarm as the most. A reading that
            is missing has no row.
        """
        kept = self.lanes.loc[self.lanes["seed"].notna(), ["week", "seed"]].astype("int64")
        rows = self.rows[self.rows["lane"].isin(kept.index)]
        score = rows["score"].fillna(rows["score"].min()).to_numpy(float, copy=True)
        keys = ["lane", "utc_timestamp"]
        hard = pd.MultiIndex.from_frame(self.hard[keys])
        score[pd.MultiIndex.from_frame(rows[keys]).isin(hard)] = score.max(initial=0.0)
        found = rows[["lane", "machine_id"]].assign(faulty=self._faulty(rows), score=score)
        return found.join(kept, on="lane").drop(columns="lane").reset_index(drop=True)

    def _faulty(self, rows: pd.DataFrame) -> npt.NDArray[np.bool_]:
        faulty, lanes = np.zeros(len(rows), dtype=bool), set(rows["lane"].tolist())
        for event in self.events:
            if event.machine_id in lanes:
                during = rows["utc_timestamp"].between(event.start, event.end)
                faulty |= (during & (rows["lane"] == event.machine_id)).to_numpy()
        return faulty

    def _inside(self, cases: Sequence[Case], frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
        numbered = [frame.assign(case=number) for number, frame in enumerate(frames)]
        table = pd.concat(numbered, ignore_index=True)
        ticks, case = microseconds(table["utc_timestamp"]), table["case"].to_numpy(np.int64)
        start, end = (
            np.array([round(getattr(case.window, name).timestamp() * 1e6) for case in cases])
            for name in ("start", "end")
        )
        kept: pd.DataFrame = table[(ticks >= start[case]) & (ticks < end[case])]
        keys = self.lanes.reset_index(names="lane")[["lane", "case", "machine_id"]]
        merged: pd.DataFrame = kept.merge(keys, on=["case", "machine_id"])
        return merged


@dataclass(frozen=True)
class Cut:
    """Thresholds of all machines: of a budget, or (None) of a step of the sweep."""

    budget: float | None
    step: int
    thresholds: Mapping[int, float]


@dataclass(frozen=True)
class Outcome:
    """What one contender did in one trial."""

    contender: str
    origin: int
    field: Field
    judged: Sequence[tuple[Cut, Judgement]]

    def events(self) -> pd.DataFrame:
        """What became of each event, at each budget."""
        lanes = self.field.lanes[["week", "seed", "machine_id"]]
        found = [
            judgement.events.drop(columns="machine_id")
            .join(lanes.loc[judgement.events["machine_id"]].reset_index(drop=True))
            .assign(contender=self.contender, budget=cut.budget)
            for cut, judgement in self._fixed()
        ]
        return pd.concat(found, ignore_index=True)

    def alerts(self) -> pd.DataFrame:
        """Number of incidents and of false ones in each lane, at each budget."""
        counted = [
            self.field.lanes.join(_counts(judgement))
            .fillna({"alerts": 0, "false": 0})
            .assign(contender=self.contender, budget=cut.budget)
            for cut, judgement in self._fixed()
        ]
        return pd.concat(counted, ignore_index=True)

    def swept(self) -> pd.DataFrame:
        """Sums over the injected lanes at each step of the sweep."""
        injected = self.field.lanes["seed"].notna()
        rows = [
            {
                "contender": self.contender,
                "step": cut.step,
                "events": len(judgement.events),
                "found": int(judgement.events["found"].sum()),
                "false": int(_counts(judgement)["false"].loc[lambda n: injected[n.index]].sum()),
                "machine_weeks": self.field.lanes.loc[injected, "machine_weeks"].sum(),
            }
            for cut, judgement in self.judged
            if cut.budget is None
        ]
        return pd.DataFrame(rows)

    def thresholds(self) -> pd.DataFrame:
        """The thresholds of each budget."""
        rows = [
            (self.contender, self.origin, cut.budget, machine, threshold)
            for cut, _ in self._fixed()
            for machine, threshold in cut.thresholds.items()
        ]
        columns = ["contender", "origin", "budget", "machine_id", "threshold"]
        return pd.DataFrame(rows, columns=columns)

    def _fixed(self) -> list[tuple[Cut, Judgement]]:
        return [(cut, judgement) for cut, judgement in self.judged if cut.budget is not None]


def _lanes(cases: Sequence[Case]) -> pd.DataFrame:
    rows = [
        (number, case.week, case.seed, machine, (case.window.end - case.window.start) / WEEK)
        for number, case in enumerate(cases)
        for machine in case.readings["machine_id"].unique().tolist()
    ]
    columns = ["case", "week", "seed", "machine_id", "machine_weeks"]
    return pd.DataFrame(rows, columns=columns).astype({"seed": "Int64"})


def _counts(judgement: Judgement) -> pd.DataFrame:
    """``alerts`` and ``false`` by lane, where there are any."""
    incidents = judgement.incidents.assign(false=~judgement.incidents["real"].astype(bool))
    return incidents.groupby("machine_id").agg(alerts=("real", "size"), false=("false", "sum"))
