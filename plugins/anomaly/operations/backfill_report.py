"""What a backfill would change, or has changed: one report for preview and result."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime, timedelta
from typing import Any

from anomaly.scoring.publishing import Flips, ScoreReport
from anomaly.wording import printable

MOST_SHOWN = 20
"""Machines and incidents that are named in a table; of more there is only a count. Chosen."""

COUNTS = ("scored", "inserted", "updated", "retracted", "retraction_withheld", "anomalies")
"""Counts that `ScoreReport` and the ledger have."""

Incident = Mapping[str, Any]
"""An incident as `IncidentChanges.summary` gives it."""


@dataclass(frozen=True)
class IncidentsChanged:
    """Incidents that are opened, merged into others, or withdrawn."""

    opened: tuple[Incident, ...] = ()
    merged: tuple[Incident, ...] = ()
    withdrawn: tuple[Incident, ...] = ()

    def __add__(self, other: "IncidentsChanged") -> "IncidentsChanged":
        return IncidentsChanged(
            self.opened + other.opened,
            self.merged + other.merged,
            self.withdrawn + other.withdrawn,
        )

    def joined(self, apart: timedelta) -> "IncidentsChanged":
        """Each incident once, though several chunks have told of it.

        What one chunk opened and a later one took away was never there. Chunks of a preview know
        nothing of each other's incidents: those of one machine that are no more than `apart` from
        each other are one.
        """
        gone = {one["incident_id"] for one in (*self.merged, *self.withdrawn)}
        new = {one["incident_id"] for one in self.opened} - {None}
        opened = [one for one in self.opened if one["incident_id"] not in gone or not gone]
        return IncidentsChanged(
            tuple(_joined(opened, apart)),
            tuple(_once(one for one in self.merged if one["incident_id"] not in new)),
            tuple(_once(one for one in self.withdrawn if one["incident_id"] not in new)),
        )


def _joined(incidents: Iterable[Incident], apart: timedelta) -> list[Incident]:
    found: list[Incident] = []
    for one in sorted(incidents, key=lambda one: (_who(one), one["started_at"])):
        last = found[-1] if found else None
        if last and _who(last) == _who(one) and _moment(one, "started_at") <= (
            _moment(last, "last_at") + apart
        ):  # fmt: skip
            found[-1] = {**last, "last_at": max(last["last_at"], one["last_at"])}
        else:
            found.append(one)
    return found


def _who(incident: Incident) -> tuple[int, str]:
    return incident["machine_id"], incident["kind"]


def _moment(incident: Incident, name: str) -> datetime:
    return datetime.fromisoformat(incident[name])


def _once(incidents: Iterable[Incident]) -> list[Incident]:
    return [*{one["incident_id"]: one for one in incidents}.values()]


@dataclass(frozen=True)
class BackfillReport:
    """What a backfill would change, or has changed; reports of chunks add up.

    Attributes
    ----------
    read : int
        Readings in the range.
    scored, inserted, updated, retracted, anomalies : int
        Verdicts, as in `ScoreReport`.
    retraction_withheld : int
        Verdicts without a reading that stay, because they are more than the settings allow.
    flips : Flips
        Verdicts that say the opposite, per machine.
    incidents : IncidentsChanged
    strangers : tuple of str
        Machines that nobody has registered yet: their readings are not counted.
    seconds : float
        Of a preview: work that it took, which is about what the backfill will take. Of a result:
        time from its start to its end.
    """

    read: int = 0
    scored: int = 0
    inserted: int = 0
    updated: int = 0
    retracted: int = 0
    retraction_withheld: int = 0
    anomalies: int = 0
    flips: Flips = field(default_factory=Flips)
    incidents: IncidentsChanged = field(default_factory=IncidentsChanged)
    strangers: tuple[str, ...] = ()
    seconds: float = 0.0

    @classmethod
    def of(cls, readings: int, scores: ScoreReport, seconds: float) -> "BackfillReport":
        """The report of a piece whose `scores` were counted."""
        counts = {name: getattr(scores, name) for name in COUNTS}
        return cls(
            readings,
            **counts | {"updated": scores.updated - scores.again},
            flips=scores.flips,
            incidents=incidents_of(scores.incidents.summary()),
            seconds=seconds,
        )

    def __add__(self, other: "BackfillReport") -> "BackfillReport":
        both = {
            field.name: getattr(self, field.name) + getattr(other, field.name)
            for field in fields(self)
        }
        return BackfillReport(**both | {"strangers": tuple(sorted({*both["strangers"]}))})

    @property
    def unchanged(self) -> int:
        """Verdicts that stay as they are."""
        return max(0, self.read - self.inserted - self.updated)

    @property
    def flipped_share(self) -> float:
        """Verdicts that say the opposite, as a share of those that are there."""
        there = self.read - self.inserted
        flipped = self.flips.to_abnormal + self.flips.to_normal
        return min(1.0, flipped / there) if there > 0 else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        values = asdict(self)
        del values["flips"]
        return values | {
            "unchanged": self.unchanged,
            "to_abnormal": self.flips.to_abnormal,
            "to_normal": self.flips.to_normal,
            "flips": {str(machine): list(both) for machine, both in self.flips.of_machine.items()},
            "incidents": {name: list(found) for name, found in vars(self.incidents).items()},
            "strangers": list(self.strangers),
            "seconds": round(self.seconds, 2),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "BackfillReport":
        """The report that `as_dict` turned into plain values."""
        counts = {name: values[name] for name in ("read", *COUNTS, "seconds")}
        return cls(
            **counts,
            flips=flips_of(values["flips"]),
            incidents=incidents_of(values["incidents"]),
            strangers=tuple(values["strangers"]),
        )


def flips_of(values: Mapping[str, Sequence[int]]) -> Flips:
    """Flips from JSON values."""
    return Flips({int(machine): (both[0], both[1]) for machine, both in values.items()})


def incidents_of(values: Mapping[str, Sequence[Incident]]) -> IncidentsChanged:
    """Changed incidents from JSON values."""
    return IncidentsChanged(**{name: tuple(found) for name, found in values.items()})


def as_note(report: BackfillReport, title: str) -> str:
    """The report in a few lines, for the note of a run, which holds 1,000 characters.

    Airflow shows the first line of a note; the others where it is opened.
    """
    lines = [
        f"{title}: {report.inserted:,} new, {report.updated:,} changed,"
        f" {report.flips.to_abnormal:,} turned abnormal, {report.flips.to_normal:,} turned normal",
        f"{report.read:,} readings; {report.retracted:,} verdicts retracted,"
        f" {report.unchanged:,} unchanged",
        "incidents: "
        + ", ".join(f"{len(found):,} {name}" for name, found in vars(report.incidents).items()),
        f"{_duration(report.seconds)}; the tables are in the task's log",
    ]
    return "\n\n".join(lines)


# For people -----------------------------------------------------------------------


def as_markdown(
    report: BackfillReport,
    title: str,
    asked: Mapping[str, str],
    names: Mapping[int, str],
    estimated: float | None = None,
    *,
    is_preview: bool,
) -> str:
    """The report as Markdown: what was asked, the counts, then machines and incidents.

    Parameters
    ----------
    asked : mapping
        What was asked for, in words: range, machines, versions, mode.
    names : mapping
        Machines' names by their number.
    estimated : float, optional
        Seconds that a preview estimated.
    """
    would = "would be " if is_preview else ""
    facts: list[tuple[str, str]] = [
        *asked.items(),
        ("readings in range", f"{report.read:,}"),
        (f"verdicts {would}new", f"{report.inserted:,}"),
        (f"verdicts {would}changed", f"{report.updated:,}"),
        (f"verdicts {would}retracted", f"{report.retracted:,}"),
        ("verdicts unchanged", f"{report.unchanged:,}"),
        ("of the changed: normal before, abnormal now", f"{report.flips.to_abnormal:,}"),
        ("of the changed: abnormal before, normal now", f"{report.flips.to_normal:,}"),
    ]
    for name, found in vars(report.incidents).items():
        facts.append((f"incidents {would}{name}", f"{len(found):,}"))
    if report.strangers:
        names_of = ", ".join(report.strangers[:5]) + ", ..." * (len(report.strangers) > 5)
        facts.append(("machines not known yet, whose readings are not counted", names_of))
    if report.retraction_withheld:
        withheld = f"{report.retraction_withheld:,}, more than ANOMALY_RETRACT_LIMIT allows"
        facts.append(("verdicts without a reading that stay", withheld))
    if is_preview:
        facts.append(("time estimated", _duration(report.seconds)))
    else:
        if estimated is not None:
            facts.append(("time estimated", _duration(estimated)))
        facts.append(("time taken", _duration(report.seconds)))
    parts = [f"### {title}", _table(("", ""), facts)]
    if flips := report.flips.of_machine:
        most = sorted(flips.items(), key=lambda item: (-sum(item[1]), item[0]))
        turned = [(names.get(machine, str(machine)), *both) for machine, both in most]
        parts.append(_table(("machine", "abnormal now", "normal now"), turned))
    rows = [
        (name, names.get(one["machine_id"], one["machine_id"]), _span(one), one["reason"] or "")
        for name, found in vars(report.incidents).items()
        for one in found
    ]
    if rows:
        parts.append(_table(("incident", "machine", "from, to (UTC)", "why"), rows))
    return "\n\n".join(parts)


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    shown = [header, ["---"] * len(header), *rows[:MOST_SHOWN]]
    lines = ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in shown]
    if more := len(rows) - MOST_SHOWN:
        lines += ["", f"and {more:,} more"] if more > 0 else []
    return "\n".join(lines)


def _cell(value: object) -> str:
    """Text from data, so that nothing in it breaks the table, or steers who reads it."""
    text = printable(" ".join(str(value).split()))
    return "".join(f"\\{mark}" if mark in "\\|*_`[]<>#" else mark for mark in text)


def _span(incident: Incident) -> str:
    first, last = (_moment(incident, name) for name in ("started_at", "last_at"))
    return f"{first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
