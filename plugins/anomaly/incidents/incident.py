"""An incident: an episode with an identity and a state."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from anomaly.incidents.episodes import Episode


class State(StrEnum):
    """The state of an incident."""

    OPEN = "open"
    ACKNOWLEDGED = "acknowledged"
    CLOSED = "closed"
    SILENCED = "silenced"
    WITHDRAWN = "withdrawn"
    MERGED = "merged"


@dataclass(frozen=True)
class Incident:
    """An episode with an identity; ``incident_id`` is None until it is written.

    Attributes
    ----------
    settled : bool
        The machine has been abnormal for days. This is its new normal, and training learns it.
    """

    episode: Episode
    incident_id: int | None = None
    state: State = State.OPEN
    ended_at: datetime | None = None
    merged_into: int | None = None
    acknowledged: bool = False
    settled: bool = False

    @property
    def is_live(self) -> bool:
        """Whether its episode exists: it is neither withdrawn nor merged."""
        return self.state not in (State.WITHDRAWN, State.MERGED)
