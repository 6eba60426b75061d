"""The report of an evaluation of several sets of readings, with both injectors."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from rich.table import Table

from anomaly.evaluation.report import (
    ALL,
    EvaluationReport,
    magnitudes,
    plain_table,
    two_digits,
)
from anomaly.evaluation.train_test_weeks import Injector

COMPARED_AT = 1.0
"""Realised false alerts per machine-week at which contenders are compared."""


@dataclass(frozen=True)
class SetReport:
    """What was judged on one set, with the faults of one injector."""

    name: str
    injector: Injector
    report: EvaluationReport

    @property
    def title(self) -> str:
        """Set and injector, in words."""
        return f"{self.name}, {self.injector.value} faults"


@dataclass(frozen=True)
class SetsReport:
    """All sets and injectors, in the order in which they were asked for."""

    parts: Sequence[SetReport]

    def tables(self) -> list[Table]:
        """The tables for a terminal: contenders per set, and our families per set."""
        families = [self._family_table(injector) for injector in Injector if self._found(injector)]
        return [self._contender_table(), self._swept_table(), *families]

    def _found(self, injector: Injector) -> list[SetReport]:
        """The sets in which faults of an injector are possible."""
        mine = [part for part in self.parts if part.injector is injector]
        return [part for part in mine if not part.report.events.empty]

    def as_dict(self) -> dict[str, list[dict[str, Any]]]:
        """One entry per set and injector, with the tables of `EvaluationReport.as_dict`."""
        return {
            "sets": [
                {"set": part.name, "injector": part.injector.value} | part.report.as_dict()
                for part in self.parts
            ]
        }

    def _contender_table(self) -> Table:
        table = plain_table(
            "Thresholds fixed on training readings; brackets are 95 % intervals;"
            " undisturbed: alerts per machine-week where nothing was injected",
            "set", "detector", "budget", "events", "found", "false alerts per machine-week",
            "precision", "delay, h", "undisturbed",
        )  # fmt: skip
        table.columns[1].justify = "left"
        for part in self.parts:
            title = part.title
            for row, cells in part.report.summary_cells():
                name, budget, events = str(row["contender"]), row["budget"], row["events"]
                table.add_row(title, name, f"{budget:g}", str(events), *cells)
                title = ""
        skipped = {reason for part in self.parts for reason in part.report.skipped["reason"]}
        bound = "! more or fewer than chance explains at that budget (95 % Poisson bound)"
        table.caption = "\n".join([bound, *sorted(skipped)])
        return table

    def _swept_table(self) -> Table:
        names = self.parts[0].report.contenders["contender"].tolist()
        table = plain_table(
            f"Events found at {COMPARED_AT:g} realised false alert per machine-week (swept: read"
            " off the test weeks)",
            "set",
            *names,
        )
        for part in self.parts:
            found = part.report.at_rates([COMPARED_AT]).set_index("contender")["recall_swept"]
            table.add_row(part.title, *(two_digits(found.get(name)) for name in names))
        return table

    def _family_table(self, injector: Injector) -> Table:
        """The first contender by family and magnitude, at the middle budget: a column per set."""
        parts = self._found(injector)
        budget = parts[0].report.middle_budget()
        first = parts[0].report.contenders["contender"].iloc[0]
        table = plain_table(
            f"{first}, {injector.value} faults found at budget {budget:g} (number of them)",
            "family", *(part.name for part in parts),
        )  # fmt: skip
        found = pd.concat(part.report.families().assign(set=part.name) for part in parts).loc[
            lambda rows: (rows["contender"] == first) & (rows["budget"] == budget)
        ]
        for family, magnitude in _families(found):
            mine = found[(found["family"] == family) & (found["magnitude"] == magnitude)]
            cells = mine.set_index("set")
            table.add_row(
                family if magnitude == ALL else f"  {magnitude}",
                *(
                    f"{two_digits(cells.at[part.name, 'recall'])} ({cells.at[part.name, 'events']})"
                    if part.name in cells.index
                    else "-"
                    for part in parts
                ),
            )
        return table


def _families(found: pd.DataFrame) -> Iterator[tuple[str, str]]:
    for family, group in found.groupby("family"):
        for magnitude in magnitudes(group):
            yield str(family), magnitude
