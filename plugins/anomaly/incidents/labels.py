"""What people say about a machine and a range of time."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from anomaly.incidents.episodes import Episode


class LabelName(StrEnum):
    """What people say about a machine and a range of time."""

    REAL = "real"
    FALSE_ALARM = "false_alarm"
    MAINTENANCE = "maintenance"
    METER_FAULT = "meter_fault"


NOT_NORMAL = (LabelName.REAL, LabelName.MAINTENANCE, LabelName.METER_FAULT)
"""Training never uses readings with these labels."""


@dataclass(frozen=True)
class Label:
    """What somebody said about a machine during ``[start, end)``; None: no limit on that side.

    If labels contradict each other, the latest one counts. Lists of labels are always in the
    order in which the labels were given.
    """

    machine_id: int
    label: LabelName
    start: datetime | None
    end: datetime | None

    def covers(self, moment: datetime) -> bool:
        """Whether the range contains `moment`."""
        return (self.start is None or self.start <= moment) and (
            self.end is None or moment < self.end
        )

    def touches(self, episode: Episode, interval: timedelta) -> bool:
        """Whether the range overlaps the episode."""
        return (self.end is None or episode.started_at < self.end) and (
            self.start is None or self.start < episode.last_at + interval
        )
