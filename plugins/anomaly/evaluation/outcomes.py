"""What a contender did in a trial: its scores of all cases side by side, and alerts matched."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

import numpy as np
import numpy.typing as npt
import pandas as pd

from anomaly.arrays import Floats
from anomaly.evaluation.alert_matching import MatchedAlerts, match_alerts
from anomaly.evaluation.train_test_weeks import WEEK, Case
from anomaly.readings.preprocessing import microseconds
from anomaly.windows import Window


class ScoredCases:
    """Scores and hard alarms of all cases of a trial, so that one call matches them all.

    Each machine of each case has its own lane: it counts as a machine of its own.

    Parameters
    ----------
    scores : sequence of array
        One per case, aligned with its readings.
    alarms : sequence of DataFrame or None
        One per case: ``machine_id`` and ``utc_timestamp`` that alarm at any threshold.
    interval : timedelta
        The meter's.

    Attributes
    ----------
    lanes : DataFrame
        ``case, week, seed, machine_id, machine_weeks``; the index is the lane.
    rows, hard : DataFrame
        ``lane, machine_id, utc_timestamp`` inside the windows of the cases: of readings with
        their ``score``, and of hard alarms.
    events : list of Event
        Those of all cases; their ``machine_id`` is the lane.
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

    def match_alerts(self, thresholds: Mapping[int, float]) -> MatchedAlerts:
        """Match the alerts of all lanes; a machine without a threshold raises only hard alarms."""
        machines, place = np.unique(self.rows["machine_id"].to_numpy(), return_inverse=True)
        limits = np.array([thresholds.get(machine, np.inf) for machine in machines.tolist()])
        flagged = self.rows[self.rows["score"].to_numpy() >= limits[place]]
        both = pd.concat([flagged, self.hard]) if len(self.hard) else flagged
        alarms = pd.DataFrame(
            {"machine_id": both["lane"].to_numpy(), "utc_timestamp": both["utc_timestamp"].array}
        )
        lanes = list(range(len(self.lanes)))
        return match_alerts(alarms, self.events, self._window, lanes, self.interval)

    def scores(self) -> pd.DataFrame:
        """Whether each reading of the injected lanes is faulty, and its score.

        Returns
        -------
        DataFrame
            ``week, seed, machine_id, faulty, score``, in the order of cases, machines and time.
            A reading without a verdict gets the lowest score, a hard alarm the highest. A
            missing reading has no row.
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
class ThresholdSet:
    """A threshold for each machine: those of an alert budget, or of a point of the sweep.

    Attributes
    ----------
    budget : float or None
        None for a point of the sweep.
    sweep_point : int
        Number of the point; -1 for a budget.
    """

    budget: float | None
    sweep_point: int
    thresholds: Mapping[int, float]


@dataclass(frozen=True)
class Outcome:
    """What one contender did in one trial.

    Attributes
    ----------
    split : int
        Number of the trial.
    matched : sequence of (ThresholdSet, MatchedAlerts)
        What became of its alerts at each set of thresholds.
    """

    contender: str
    split: int
    cases: ScoredCases
    matched: Sequence[tuple[ThresholdSet, MatchedAlerts]]

    def events(self) -> pd.DataFrame:
        """What became of each event, at each budget."""
        lanes = self.cases.lanes[["week", "seed", "machine_id"]]
        found = [
            matched.events.drop(columns="machine_id")
            .join(lanes.loc[matched.events["machine_id"]].reset_index(drop=True))
            .assign(contender=self.contender, budget=chosen.budget)
            for chosen, matched in self._at_budgets()
        ]
        return pd.concat(found, ignore_index=True)

    def alerts(self) -> pd.DataFrame:
        """Number of incidents and of false ones in each lane, at each budget."""
        counted = [
            self.cases.lanes.join(_alerts_by_lane(matched))
            .fillna({"alerts": 0, "false": 0})
            .assign(contender=self.contender, budget=chosen.budget)
            for chosen, matched in self._at_budgets()
        ]
        return pd.concat(counted, ignore_index=True)

    def swept(self) -> pd.DataFrame:
        """Sums over the injected lanes at each point of the sweep (column ``step``)."""
        injected = self.cases.lanes["seed"].notna()
        rows = [
            {
                "contender": self.contender,
                "step": chosen.sweep_point,
                "events": len(matched.events),
                "found": int(matched.events["found"].sum()),
                "false": int(
                    _alerts_by_lane(matched)["false"].loc[lambda n: injected[n.index]].sum()
                ),
                "machine_weeks": self.cases.lanes.loc[injected, "machine_weeks"].sum(),
            }
            for chosen, matched in self.matched
            if chosen.budget is None
        ]
        return pd.DataFrame(rows)

    def thresholds(self) -> pd.DataFrame:
        """The thresholds of each budget (column ``origin``: number of the split)."""
        rows = [
            (self.contender, self.split, chosen.budget, machine, threshold)
            for chosen, _ in self._at_budgets()
            for machine, threshold in chosen.thresholds.items()
        ]
        columns = ["contender", "origin", "budget", "machine_id", "threshold"]
        return pd.DataFrame(rows, columns=columns)

    def _at_budgets(self) -> list[tuple[ThresholdSet, MatchedAlerts]]:
        return [(chosen, found) for chosen, found in self.matched if chosen.budget is not None]


def _lanes(cases: Sequence[Case]) -> pd.DataFrame:
    rows = [
        (number, case.week, case.seed, machine, (case.window.end - case.window.start) / WEEK)
        for number, case in enumerate(cases)
        for machine in case.readings["machine_id"].unique().tolist()
    ]
    columns = ["case", "week", "seed", "machine_id", "machine_weeks"]
    return pd.DataFrame(rows, columns=columns).astype({"seed": "Int64"})


def _alerts_by_lane(matched: MatchedAlerts) -> pd.DataFrame:
    """``alerts`` and ``false`` by lane, for lanes with alerts."""
    incidents = matched.incidents.assign(false=~matched.incidents["real"].astype(bool))
    return incidents.groupby("machine_id").agg(alerts=("real", "size"), false=("false", "sum"))
