"""The table of injected faults: each test tells what it injected, and all of it is counted."""

import json
import os
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pytest

FULL = os.environ.get("FAULTS") == "full"
"""`make test-faults`: as often as the table wants it, and the table is written."""
NUMBERS = range(1, 25)
SLEPT = "SIGSTOP of supervisor and task past Airflow's heartbeat, a retry succeeds, SIGCONT"
ORPHANED = "the task's supervisor is killed, its orphan goes on"
NO_SCHEDULER = "the scheduler is killed while a task publishes, and started again"
NO_API_SERVER = "the API server is killed in mid-task, and started again"
IN_AIRFLOW = (SLEPT, ORPHANED, NO_SCHEDULER, NO_API_SERVER)
"""Faults of tests/acceptance/test_killed_airflow.py."""
BEGIN, END = "<!-- faults: begin -->\n", "<!-- faults: end -->\n"
_HEAD = (
    "| | fault | injected | lost | doubled | wrong | recovered in (middle, longest) |\n"
    "|---|---|---|---|---|---|---|\n"
)


def wanted(number: int) -> int:
    """How often the table wants a fault."""
    return 20 if number in (1, 2, 3, 4, 9, 10, 11, 12) else 5


@dataclass
class Injection:
    """A fault that was injected, and what came of it; `seconds` is None until it is over."""

    number: int
    fault: str
    lost: int = 0
    doubled: int = 0
    wrong: int = 0
    seconds: float | None = None
    is_compared: bool = False

    def found(self, lost: int, doubled: int, wrong: int) -> None:
        """Say how many readings are not what they must be."""
        self.lost, self.doubled, self.wrong = lost, doubled, wrong
        self.is_compared = True


@contextmanager
def recorded(
    record_property: Callable[[str, object], None], number: int, fault: str
) -> Iterator[Injection]:
    """Tell of an injection, whether it succeeds or not."""
    injection = Injection(number, fault)
    try:
        yield injection
    finally:
        record_property("fault", json.dumps(asdict(injection)))


@dataclass
class Row:
    """All injections of one fault.

    Attributes
    ----------
    not_injected : list of str
        Why some of them have no result: a failure, or the reason of a skip.
    """

    number: int
    fault: str
    injections: list[Injection] = field(default_factory=list)
    not_injected: list[str] = field(default_factory=list)

    @property
    def counts(self) -> tuple[int, int, int]:
        """Lost, doubled and wrong, of all injections."""
        found = self.injections
        return (
            sum(each.lost for each in found),
            sum(each.doubled for each in found),
            sum(each.wrong for each in found),
        )

    @property
    def seconds(self) -> tuple[float, float]:
        """Middle and longest time of recovery."""
        took = [each.seconds or 0.0 for each in self.injections] or [0.0]
        return statistics.median(took), max(took)

    @property
    def as_text(self) -> str:
        """One line of the terminal."""
        lost, doubled, wrong = self.counts
        line = (
            f"fault {self.number:>2} {self.fault}: {len(self.injections)} times, lost {lost},"
            f" doubled {doubled}, wrong {wrong}, recovered in {self.seconds[0]:.1f} s"
        )
        if self.not_injected:
            line += f"; {len(self.not_injected)} more: {self.not_injected[0]}"
        return line

    @property
    def as_markdown(self) -> str:
        """One line of the page."""
        lost, doubled, wrong = self.counts
        middle, longest = self.seconds
        return (
            f"| {self.number} | {self.fault} | {len(self.injections)} | {lost} | {doubled}"
            f" | {wrong} | {middle:.1f} s, {longest:.1f} s |\n"
        )


def rows_of(reports: Iterable[pytest.TestReport]) -> list[Row]:
    """Gather what tests have told, by fault."""
    rows: dict[tuple[int, str], Row] = defaultdict()
    for report in reports:
        for name, value in report.user_properties:
            if name != "fault":
                continue
            injection = Injection(**json.loads(str(value)))
            key = injection.number, injection.fault
            row = rows.setdefault(key, Row(*key))
            if injection.is_compared:
                row.injections.append(injection)
            elif report.skipped and isinstance(report.longrepr, tuple):
                row.not_injected.append(report.longrepr[2].lower())
            else:
                row.not_injected.append("it failed before results were compared")
    return [rows[key] for key in sorted(rows)]


def missing(rows: Sequence[Row], faults: Iterable[str]) -> list[str]:
    """Why the rows are not the whole table."""
    says = [f"fault {number} was not injected" for number in NUMBERS if not _of(rows, number)]
    injected = {row.fault for row in rows}
    says += [f"not injected: {fault}" for fault in {*faults, *IN_AIRFLOW} - injected]
    says += [
        f"fault {row.number} was injected {len(row.injections)} times of {wanted(row.number)}:"
        f" {row.fault}"
        for row in rows
        if len(row.injections) < wanted(row.number)
    ]
    return says


def _of(rows: Sequence[Row], number: int) -> list[Row]:
    return [row for row in rows if row.number == number]


def write_table(rows: Sequence[Row], page: Path) -> None:
    """Write the rows between the page's markers."""
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    lines = "".join(row.as_markdown for row in rows)
    page.write_text(before + BEGIN + _HEAD + lines + END + after, encoding="utf-8")
