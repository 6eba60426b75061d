"""One measured figure beside its baseline, and how they are shown and kept."""

import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).with_name("results.json")


@dataclass(frozen=True)
class Figure:
    """A measurement.

    Attributes
    ----------
    ratio : float or None
        Baseline divided by figure, so that more is faster; None without a baseline.
    target : str
        What an issue asks for; empty where it just asks.
    met : bool or None
        Whether the target is reached.
    """

    name: str
    figure: float
    unit: str
    baseline: str = ""
    ratio: float | None = None
    target: str = ""
    met: bool | None = None

    @classmethod
    def at_most(
        cls, name: str, figure: float, unit: str, baseline: str, base: float, times: float | None
    ) -> Self:
        """A figure that should be no more than so many times its baseline."""
        target = "" if times is None else f"at most {times:g} x the baseline"
        met = None if times is None else figure <= times * base
        return cls(name, figure, unit, baseline, base / figure, target, met)

    @classmethod
    def at_least(
        cls, name: str, figure: float, unit: str, baseline: str, base: float, times: float | None
    ) -> Self:
        """A figure that should be so many times smaller than its baseline."""
        target = "" if times is None else f"{times:g} x faster"
        met = None if times is None else base >= times * figure
        return cls(name, figure, unit, baseline, base / figure, target, met)

    @classmethod
    def below(cls, name: str, figure: float, unit: str, limit: float | None) -> Self:
        """A figure with a limit of its own."""
        target = "" if limit is None else f"at most {limit:g} {unit}"
        return cls(
            name, figure, unit, target=target, met=None if limit is None else figure <= limit
        )


def seconds(work: Callable[[], object]) -> float:
    """How long `work` takes, once."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


@contextmanager
def saying(what: str) -> Iterator[None]:
    """Show what is being measured."""
    console = Console(stderr=True)
    began = time.perf_counter()
    console.print(f"measuring {what} ...")
    yield
    console.print(f"  {time.perf_counter() - began:.1f} s")


def machine() -> str:
    """What the figures were measured on."""
    return (
        f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()},"
        f" {platform.system()}"
    )


def show(figures: list[Figure]) -> None:
    """Print the table and write ``benchmarks/results.json``."""
    table = Table("what", "figure", "baseline", "ratio", "target", "met", title=machine())
    for figure in figures:
        table.add_row(
            figure.name,
            f"{figure.figure:.2f} {figure.unit}",
            figure.baseline or "-",
            "-" if figure.ratio is None else f"{figure.ratio:.1f}x",
            figure.target or "-",
            {None: "-", True: "yes", False: "NO"}[figure.met],
        )
    Console(width=130).print(table)
    RESULTS.write_text(json.dumps([asdict(figure) for figure in figures], indent=2) + "\n")
