"""One measured figure beside its baseline, and how they are shown and kept."""

import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).with_name("results.json")
PAGE = Path(__file__).parents[1] / "docs" / "explanation" / "performance.md"

_HEADINGS = ("what", "figure", "baseline", "ratio", "target", "met")


@dataclass(frozen=True)
class Figure:
    """A measurement.

    Attributes
    ----------
    figure : float or None
        None where it could not be measured; `baseline` says why.
    ratio : float or None
        Baseline divided by figure, so that more is faster; None without a baseline.
    target : str
        What an issue asks for; empty where it just asks.
    met : bool or None
        Whether the target is reached.
    """

    name: str
    figure: float | None
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

    @classmethod
    def left_out(cls, name: str, reason: str) -> Self:
        """A figure that could not be measured here."""
        return cls(name, None, "", f"left out: {reason}")


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


def memory() -> float:
    """Peak of this process's resident memory so far, MB.

    Not ``ru_maxrss``: that begins with the peak of the process that started this one.
    """
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", status)
    return int(peak) / 1024


def in_a_process(module: str, *arguments: str) -> Any:
    """Run ``python -m module arguments`` in a process of its own; what it prints is JSON."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(done.stdout)


def machine() -> str:
    """What the figures were measured on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} cores, {memory:.0f} GiB, {platform.machine()},"
        f" Python {platform.python_version()}, {platform.system()}"
    )


def show(figures: Sequence[Figure], results: Path = RESULTS, page: Path = PAGE) -> None:
    """Print the table, write it to ``benchmarks/results.json`` and to the docs."""
    print_table(figures)
    results.write_text(json.dumps([asdict(figure) for figure in figures], indent=2) + "\n")
    write_page(page, "bench", figures)


def print_table(figures: Sequence[Figure]) -> None:
    """Print the table."""
    table = Table(*_HEADINGS, title=machine())
    for figure in figures:
        table.add_row(*_cells(figure))
    Console(width=130).print(table)


def write_page(page: Path, name: str, figures: Sequence[Figure]) -> None:
    """Put the table, and what it was measured on, between the markers of its name.

    Raises
    ------
    ValueError
        When the page has no such markers.
    """
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->\n"
    before, found, rest = page.read_text(encoding="utf-8").partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"{page} has no {begin.strip()} and {end.strip()}: put them in")
    rows = [_HEADINGS, ("---",) * len(_HEADINGS), *(_cells(figure) for figure in figures)]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in rows)
    page.write_text(f"{before}{begin}{machine()}:\n\n{table}\n{end}{after}", encoding="utf-8")


def _cells(figure: Figure) -> tuple[str, ...]:
    measured = "-" if figure.figure is None else f"{figure.figure:,.4g} {figure.unit}".strip()
    return (
        figure.name,
        measured,
        figure.baseline or "-",
        "-" if figure.ratio is None else f"{figure.ratio:.1f}x",
        figure.target or "-",
        {None: "-", True: "yes", False: "NO"}[figure.met],
    )
