"""Times of a file that name no zone: the moments they mean, also when clocks are set."""

from datetime import datetime

import numpy as np
import pandas as pd

from anomaly.arrays import Bools
from anomaly.loading.time_parsing import NOT_A_TIME, Stamps
from anomaly.readings import local_clocks
from anomaly.settings import MeterSettings, TimestampLabel


class LocalTimes:
    """Turns local times of one file into UTC."""

    def __init__(self, meter: MeterSettings) -> None:
        self._zone = meter.zone
        self._ends = meter.timestamp_label is TimestampLabel.END

    def utc(self, local: Stamps) -> Stamps:
        """Moments in UTC; NaT for times that the clock skips.

        A local time that the clock shows twice means its second showing here, see `DoubledHours`.
        """
        assert self._zone is not None
        utc = local_clocks.usual_utc(local, self._zone)
        skipped = local_clocks.is_skipped(local, self._zone)
        if self._ends:  # an interval may end at the moment of the change
            skipped &= local_clocks.is_skipped(local - np.timedelta64(1, "us"), self._zone)
        utc[skipped] = NOT_A_TIME
        return utc

    def are_ends_as_set_forward(self, utc: Stamps) -> Bools:
        """Which labels of interval ends are at the moment when the clock is set forward.

        This moment has two names, for example 02:00 and 03:00. An empty row with one name must
        not contradict a row with the other.
        """
        if self._zone is None or not self._ends:
            return np.zeros(len(utc), dtype=bool)
        stamps = pd.DatetimeIndex(utc).tz_localize("UTC").tz_convert(self._zone).tz_localize(None)
        local = local_clocks.as_local(stamps.to_numpy())
        return local_clocks.is_skipped(local - np.timedelta64(1, "us"), self._zone)

    def fault_of_skipped(self, local: Stamps, text: str) -> tuple[str, str]:
        """What is said of a reading at a time that the clock skips."""
        assert self._zone is not None
        moment: datetime = local.astype("datetime64[us]").item()
        advice = local_clocks.advice_on_skipped(self._zone, moment)
        return f"{text!r} is a time that clocks in {self._zone} skip", advice


class DoubledHours:
    """Rows with a local time that can mean two moments, kept until the whole file is read.

    The order of the file tells which is meant, for each machine: where its times go back, the
    second hour begins. So a row may be missing in either hour. A file that has the two moments of
    each time side by side goes back many times: there two rows with the same time are the two
    moments, and one row alone is not told apart. A file that goes back in time as a whole is read
    from its end.
    """

    def __init__(self, meter: MeterSettings) -> None:
        self._zone = meter.zone
        ends = meter.timestamp_label is TimestampLabel.END
        self._ending = meter.interval if ends else None
        self._kept: list[pd.DataFrame] = []
        self._forward = 0

    def hold_back(self, frame: pd.DataFrame, keys: list[str]) -> Bools:
        """Keep the rows with such times, and return which they are."""
        assert self._zone is not None
        stamps = frame[keys[0]]
        ticks = stamps.to_numpy("datetime64[us]")
        if len(keys) == 1:
            steps = np.diff(ticks)
        else:
            order = np.argsort(frame[keys[1]].to_numpy(str), kind="stable")
            machines = frame[keys[1]].to_numpy(str)[order]
            steps = np.diff(ticks[order])[machines[1:] == machines[:-1]]
        self._forward += int(np.sign(steps.astype(np.int64)).sum())
        doubled = local_clocks.is_doubled(self._local(stamps), self._zone, ending=self._ending)
        if doubled.any():
            self._kept.append(frame[doubled])
        return doubled

    def with_moments(self, keys: list[str]) -> tuple[pd.DataFrame, dict[int, datetime]]:
        """Tell the rows that were kept apart.

        Returns
        -------
        rows : DataFrame
            Each with the moment that it means.
        unsure : dict
            Line and local time of rows that can still mean both.
        """
        if self._zone is None or not self._kept:
            return pd.DataFrame(), {}
        frame = pd.concat(self._kept)
        if self._forward < 0:
            frame = frame.iloc[::-1]
        local = self._local(frame[keys[0]])
        early, unsure = self._told_apart(frame, local, keys)
        utc = local_clocks.usual_utc(local, self._zone)
        utc[early] = local_clocks.first_utc(local, self._zone, ending=self._ending)[early]
        moments = frame.assign(**{keys[0]: pd.DatetimeIndex(utc).tz_localize("UTC")})
        times = dict(zip(frame.index[unsure].tolist(), local[unsure].tolist(), strict=True))
        return moments[~unsure], times

    def _told_apart(
        self, frame: pd.DataFrame, local: Stamps, keys: list[str]
    ) -> tuple[Bools, Bools]:
        """Which rows mean the first hour, and which can mean both."""
        assert self._zone is not None
        machine = frame[keys[1]].to_numpy(str) if len(keys) > 1 else np.zeros(len(frame), "U1")
        # One night is one group: no clock shows an hour around noon twice.
        night = (local - np.timedelta64(12, "h")).astype("datetime64[D]").astype(np.int64)
        early, unsure = (np.zeros(len(frame), dtype=bool) for _ in range(2))
        for rows in pd.Series(local).groupby([night, machine], sort=False).indices.values():
            early[rows], unsure[rows] = self._told_apart_in_a_night(local[rows])
        if self._ending is not None:
            early |= local_clocks.begins_doubled_hour(
                local, self._zone, machine if len(keys) > 1 else None, early, self._ending
            )
        return early, unsure & ~early

    def _told_apart_in_a_night(self, local: Stamps) -> tuple[Bools, Bools]:
        """As `_told_apart`, of one machine, in the order of time."""
        assert self._zone is not None
        steps = np.diff(local).astype(np.int64)
        back = np.flatnonzero(steps <= 0)
        times, time, counts = np.unique(local, return_inverse=True, return_counts=True)
        if len(back) == 1 and (steps[back[0]] < 0 or len(times) == 1):
            return np.arange(len(local)) <= back[0], np.zeros(len(local), dtype=bool)
        twice = counts[time] == 2
        first = np.zeros(len(local), dtype=bool)
        first[np.unique(time, return_index=True)[1]] = True
        # The labels at both ends of the hour may be written once, see `begins_doubled_hour`.
        inside = local_clocks.is_doubled(local, self._zone)
        if self._ending is not None:
            inside &= local_clocks.is_doubled(local - np.timedelta64(self._ending), self._zone)
        return first & twice, (counts[time] == 1) & inside & twice.any()

    def _local(self, stamps: "pd.Series[pd.Timestamp]") -> local_clocks.Stamps:
        local = stamps.dt.tz_convert(self._zone).dt.tz_localize(None)
        return local_clocks.as_local(local.to_numpy())
