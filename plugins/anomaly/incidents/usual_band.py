"""The usual band of a machine: where most of its sound readings lie, per hour and kind of day."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np

from anomaly.readings.quality import QUALITY_NAMES, Quality

HISTORY = timedelta(weeks=4)
"""Time before an incident from which the band is computed. Chosen."""

_LEAST, _MOST = 10, 90  # percentiles of the band's ends; chosen: four of five readings are inside
_ENOUGH = 8  # chosen: with fewer readings of an hour there is no band
_SOUND = QUALITY_NAMES[: Quality.STUCK]

Verdicts = Sequence[Mapping[str, Any]]
"""Rows of `anomaly.database.results.verdicts_between`."""


class Band(NamedTuple):
    """The range of power, kW, in which most readings of an hour lie."""

    low: float
    high: float


class UsualBands:
    """The bands of a machine, from its sound readings without alarms before a moment.

    Parameters
    ----------
    zone : ZoneInfo
        The machine's clock: a band is of one of its hours, on weekends or other days.
    """

    def __init__(self, history: Verdicts, until: datetime, zone: ZoneInfo) -> None:
        self._zone = zone
        powers: dict[tuple[bool, int], list[float]] = {}
        for reading in history:
            sound = reading["quality"] in _SOUND and not reading["anomaly"]
            if sound and reading["power_kw"] is not None and reading["utc_timestamp"] < until:
                powers.setdefault(self._key(reading["utc_timestamp"]), []).append(
                    reading["power_kw"]
                )
        self._bands = {
            hour: Band(*map(float, np.percentile(found, [_LEAST, _MOST])))
            for hour, found in powers.items()
            if len(found) >= _ENOUGH
        }

    def at(self, moment: datetime) -> Band | None:
        """The band of a moment; None where too few readings are known."""
        return self._bands.get(self._key(moment))

    def _key(self, moment: datetime) -> tuple[bool, int]:
        local = moment.astimezone(self._zone)
        return local.weekday() >= 5, local.hour
