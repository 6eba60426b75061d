"""What a publication or an operator changed in incidents. Code that sends alerts starts here."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from anomaly.incidents.episodes import Severity
from anomaly.incidents.incident import Incident, State

_SEVERITIES = list(Severity)
_NEED_ATTENTION = (State.OPEN, State.ACKNOWLEDGED)


@dataclass(frozen=True)
class IncidentChange:
    """An incident before and after a change; ``before`` is None if it is new."""

    before: Incident | None
    now: Incident

    @property
    def is_opened(self) -> bool:
        """It needs attention now and did not before: it is new, or it came back."""
        return self._needs_attention(self.now) and not self._needs_attention(self.before)

    @property
    def is_worsened(self) -> bool:
        """It needed attention before and still does, with a higher severity."""
        if self.before is None or self.is_opened or not self._needs_attention(self.now):
            return False
        one, other = (_SEVERITIES.index(i.episode.severity) for i in (self.before, self.now))
        return other > one

    @property
    def is_closed(self) -> bool:
        """It needed attention before and does not now.

        It is over, explained, silenced, withdrawn or merged.
        """
        return self._needs_attention(self.before) and not self._needs_attention(self.now)

    @staticmethod
    def _needs_attention(incident: Incident | None) -> bool:
        return incident is not None and incident.state in _NEED_ATTENTION


@dataclass(frozen=True)
class IncidentChanges:
    """Every incident that has changed; two `IncidentChanges` can be added."""

    changes: tuple[IncidentChange, ...] = ()

    def __len__(self) -> int:
        return len(self.changes)

    def __add__(self, other: "IncidentChanges") -> "IncidentChanges":
        return IncidentChanges(self.changes + other.changes)

    @property
    def opened(self) -> list[Incident]:
        """Incidents that need attention now and did not before."""
        return [change.now for change in self.changes if change.is_opened]

    @property
    def worsened(self) -> list[Incident]:
        """Incidents that still need attention, with a higher severity than before."""
        return [change.now for change in self.changes if change.is_worsened]

    @property
    def closed(self) -> list[Incident]:
        """Incidents that needed attention and do not any more."""
        return [change.now for change in self.changes if change.is_closed]

    def summary(self) -> dict[str, list[dict[str, Any]]]:
        """What a report tells of them: opened, merged and withdrawn incidents, as JSON values."""
        new = [
            one.now
            for one in self.changes
            if one.now.is_live and (one.before is None or not one.before.is_live)
        ]
        return {
            "opened": [_as_json(incident) for incident in new],
            "merged": [_as_json(incident) for incident in self._turned(State.MERGED)],
            "withdrawn": [_as_json(incident) for incident in self._turned(State.WITHDRAWN)],
        }

    def _turned(self, state: State) -> list[Incident]:
        return [
            one.now
            for one in self.changes
            if one.before is not None and one.now.state is state and one.before.state is not state
        ]

    @classmethod
    def of(cls, decided: Iterable[tuple[Incident | None, Incident]]) -> "IncidentChanges":
        """Changes from pairs of (before, now); equal pairs are left out."""
        return cls(tuple(IncidentChange(*pair) for pair in decided if pair[0] != pair[1]))


def _as_json(incident: Incident) -> dict[str, Any]:
    episode = incident.episode
    return {
        "incident_id": incident.incident_id,
        "machine_id": episode.machine_id,
        "kind": episode.kind.value,
        "started_at": episode.started_at.isoformat(),
        "last_at": episode.last_at.isoformat(),
        "severity": episode.severity.value,
        "reason": episode.reason,
    }
