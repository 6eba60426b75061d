"""What a file was taken for, in words: told before anything of it counts."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class TakenFor:
    """What a file was taken for.

    Attributes
    ----------
    file, format, layout : str
        The file, how it is written, and whether it is wide or long.
    columns : str
        Which column is the time, and which are machines or readings.
    decimal : str
        The decimal mark; empty: no number has one, or the format keeps numbers.
    times, zone, doubled_hour, label : str
        How times are written, in which zone, what tells the two hours apart that clocks show
        twice, and which end of its interval a time names.
    kind, unit, evidence : str
        What the readings are, their unit, and how they run.
    converted : str
        What was changed for the table; empty: nothing.
    machines : list of str or list of int
    interval_minutes : float or None
        The most common time between two readings of a machine.
    expected_minutes : int
        The interval of the settings.
    first, last : datetime
        Earliest and latest timestamp in UTC, labelled as in the table.
    missing : int
        Intervals without a reading, between the first and the last one of each machine.
    readings : int
        Machine readings; empty cells do not count.
    ignored_columns : list of str
        Columns that were left out.
    """

    file: str
    format: str
    layout: str
    columns: str
    decimal: str
    times: str
    zone: str
    doubled_hour: str
    label: str
    kind: str
    unit: str
    evidence: str
    converted: str
    machines: list[str] | list[int]
    interval_minutes: float | None
    expected_minutes: int
    first: datetime
    last: datetime
    missing: int
    readings: int
    ignored_columns: list[str]

    def lines(self) -> list[str]:
        """Three lines for people."""
        decimal = f", decimal {_MARKS[self.decimal]}" if self.decimal else ""
        left = f"; left out: {', '.join(self.ignored_columns)}" if self.ignored_columns else ""
        interval = f"{self.interval_minutes:g}" if self.interval_minutes else "?"
        converted = f", {self.converted}" if self.converted else ""
        doubled = f"; {self.doubled_hour}" if self.doubled_hour else ""
        machines = ", ".join(map(str, self.machines[:5]))
        if (count := len(self.machines)) > 5:
            machines = f"{count} machines ({machines}, ...)"
        if self.interval_minutes not in (None, self.expected_minutes):
            interval += f" (ANOMALY_INTERVAL_MINUTES is {self.expected_minutes})"
        return [
            f"format: {self.format}{decimal}, {self.layout}: {self.columns}{left}",
            f"times: {self.times}, {self.zone}{doubled}; a time names the {self.label} of its"
            f" interval",
            f"readings: {self.readings} of {machines}, {self.kind} in {self.unit} ({self.evidence})"
            f"{converted}, every {interval} min from {self.first:%Y-%m-%d %H:%M}Z to"
            f" {self.last:%Y-%m-%d %H:%M}Z, {self.missing} missing",
        ]


_MARKS = {".": "point", ",": "comma"}
