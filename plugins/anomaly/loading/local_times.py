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

    Two rows with the same time (and machine) are the two moments. The earlier row is the
    earlier moment, or the later one if the file goes back in time.
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

    def with_moments(self, keys: list[str]) -> pd.DataFrame:
        """Return the rows that were kept, each with the moment that it means."""
        if self._zone is None or not self._kept:
            return pd.DataFrame()
        frame = pd.concat(self._kept)
        local = self._local(frame[keys[0]])
        groups = frame.groupby(keys, sort=False)
        twice = (groups[keys[0]].transform("size") == 2).to_numpy()
        number = groups.cumcount(ascending=self._forward >= 0).to_numpy()
        early = twice & (number == 0)
        if self._ending is not None:
            machine = frame[keys[1]].to_numpy(str) if len(keys) > 1 else None
            early |= local_clocks.begins_doubled_hour(
                local, self._zone, machine, early, self._ending
            )
        utc = local_clocks.usual_utc(local, self._zone)
        utc[early] = local_clocks.first_utc(local, self._zone, ending=self._ending)[early]
        return frame.assign(**{keys[0]: pd.DatetimeIndex(utc).tz_localize("UTC")})

    def _local(self, stamps: "pd.Series[pd.Timestamp]") -> local_clocks.Stamps:
        local = stamps.dt.tz_convert(self._zone).dt.tz_localize(None)
        return local_clocks.as_local(local.to_numpy())
