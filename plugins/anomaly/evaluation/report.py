"""The report of an evaluation: tables with intervals, and a picture of recall and false alerts."""

import importlib
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from rich import box
from rich.table import Table

from anomaly.errors import AnomalyError
from anomaly.evaluation.alert_matching import (
    bootstrap_counts,
    median_interval,
    poisson_bound,
    ratio_interval,
)
from anomaly.evaluation.fault_injection import Magnitude

RATES = (0.5, 1.0, 3.0)
"""Realised false alerts per machine-week at which contenders are compared."""

_DRAWS = 1000  # of the bootstrap; chosen: 25 of them lie beyond each end of a 95 % interval
_UNDISTURBED = (
    "undisturbed: alerts per machine-week where nothing was injected"
    " (! beyond the 95 % Poisson bound of the budget)"
)
ALL = "all"
"""All magnitudes of a family."""


_PICTURES = (".png", ".svg", ".pdf")


class PictureError(AnomalyError):
    """The picture has an unknown ending, or needs matplotlib, which is not installed."""


def check_picture(path: Path) -> None:
    """Refuse a picture that could not be drawn; call it before a long evaluation.

    Raises
    ------
    PictureError
        When its name does not end in .png, .svg or .pdf, or matplotlib is not installed.
    """
    if path.suffix.lower() not in _PICTURES:
        raise PictureError(
            f"the picture {str(path)!r} has no known ending: write one of {', '.join(_PICTURES)}"
        )
    if importlib.util.find_spec("matplotlib") is None:
        raise PictureError("the picture needs matplotlib: install requirements-bench.txt")


@dataclass(frozen=True)
class EvaluationReport:
    """Everything that was judged, one row per item; the tables are computed from it.

    Attributes
    ----------
    events : DataFrame
        ``contender, budget, week, seed, machine_id, family, magnitude, start, end``,
        ``found`` and ``delay_hours``: each event, at each budget.
    alerts : DataFrame
        ``contender, budget, week, seed, machine_id, machine_weeks``, ``alerts`` and
        ``false``: each machine of each case. ``seed`` is NA where nothing was injected.
    swept : DataFrame
        ``contender, step, events, found, false, machine_weeks``; a step is a point of the
        sweep. Thresholds of a sweep are chosen on training readings too, but which step to
        read off is chosen on the test.
    thresholds : DataFrame
        ``contender, origin, budget, machine_id, threshold``, fixed before the test; the origin
        is the number of the split.
    contenders : DataFrame
        ``contender`` and ``seconds``.
    skipped : DataFrame
        ``contender`` and ``reason``.
    scores : DataFrame or None
        ``contender, week, seed, machine_id, faulty, score``: the readings of the injected
        test weeks, if they were asked for.
    """

    events: pd.DataFrame
    alerts: pd.DataFrame
    swept: pd.DataFrame
    thresholds: pd.DataFrame
    contenders: pd.DataFrame
    skipped: pd.DataFrame
    scores: pd.DataFrame | None = None

    def summary(self) -> pd.DataFrame:
        """One row per contender and budget, with 95 % intervals over weeks and seeds.

        ``recall``, ``precision``, ``delay_hours`` (median) and ``false_alerts`` (realised, per
        machine-week, in injected weeks), each with ``_low`` and ``_high``.
        """
        units = _Units(self.alerts)
        rows = [
            {"contender": name, "budget": budget, "events": len(events)}
            | units.ratio("recall", events, "found", None)
            | units.ratio("precision", alerts, "real", "alerts")
            | units.median("delay_hours", events)
            | units.ratio("false_alerts", alerts, "false", "machine_weeks")
            for name, budget, events, alerts in self._groups()
        ]
        return pd.DataFrame(rows).merge(self.contenders, on="contender", how="left")

    def families(self) -> pd.DataFrame:
        """Recall and delay by family and magnitude (``all``: of the family), with 95 % intervals.

        One row per contender, budget, family and magnitude. Only `summary` has precision and
        false alerts: a false alert belongs to no family.
        """
        units = _Units(self.alerts)
        everything = pd.concat([self.events, self.events.assign(magnitude=ALL)])
        keys = ["contender", "budget", "family", "magnitude"]
        rows = [
            dict(zip(keys, key, strict=True))
            | {"events": len(events)}
            | units.ratio("recall", events, "found", None)
            | units.median("delay_hours", events)
            for key, events in everything.groupby(keys, sort=False)
        ]
        return pd.DataFrame(rows)

    def quiet(self) -> pd.DataFrame:
        """False alerts per machine-week where nothing was injected, and what the budget explains.

        ``low`` and ``high`` are the 95 % Poisson bound of the budget, as a rate.
        """
        calm = self.alerts[self.alerts["seed"].isna()]
        keys = ["contender", "budget"]
        sums = calm.groupby(keys, sort=False, as_index=False)[["alerts", "machine_weeks"]].sum()
        bounds = [
            poisson_bound(budget, weeks)
            for budget, weeks in zip(sums["budget"], sums["machine_weeks"], strict=True)
        ]
        low, high = (
            np.array([bound[side] for bound in bounds]) / sums["machine_weeks"] for side in (0, 1)
        )
        rate = sums["alerts"] / sums["machine_weeks"]
        within = (rate >= low - 1e-9) & (rate <= high + 1e-9)
        return sums.assign(rate=rate, low=low, high=high, within=within)

    def curves(self) -> pd.DataFrame:
        """Recall against realised false alerts, swept."""
        return self.swept.assign(
            recall=self.swept["found"] / self.swept["events"],
            false_alerts=self.swept["false"] / self.swept["machine_weeks"],
        )

    def at_rates(self, rates: Sequence[float] = RATES) -> pd.DataFrame:
        """Recall at the same realised false alerts, read off the swept curves.

        NaN where a contender has no threshold that quiet.
        """
        rows = [
            {"contender": name, "false_alerts": rate, "recall_swept": _read_off(curve, rate)}
            for name, curve in self.curves().groupby("contender", sort=False)
            for rate in rates
        ]
        return pd.DataFrame(rows)

    def as_dict(self) -> dict[str, list[dict[str, Any]]]:
        """Every table as rows of plain values; None where a figure is not defined."""
        return {
            "summary": _records(self.summary()),
            "families": _records(self.families()),
            "undisturbed": _records(self.quiet()),
            "at_rates": _records(self.at_rates()),
            "curves": _records(self.curves()),
            "thresholds": _records(self.thresholds),
            "skipped": _records(self.skipped),
        }

    def tables(self) -> list[Table]:
        """The tables for a terminal: the summary, and events by family and magnitude."""
        if self.events.empty:
            return [self.table()]
        found = self.families()
        return [
            self.table(),
            self._swept_table(),
            self._family_table(found),
            self._contender_table(found),
        ]

    def table(self) -> Table:
        """The summary, one row per contender and budget."""
        table = plain_table(
            "Faults found: thresholds fixed on training readings, brackets are 95 % intervals",
            "detector", "budget", "events found", "false alerts per machine-week", "precision",
            "delay, h", "undisturbed",
        )  # fmt: skip
        before = None
        for row, cells in self.summary_cells():
            name = str(row["contender"])
            table.add_row("" if name == before else name, f"{row['budget']:g}", *cells)
            before = name
        table.caption = "\n".join(
            [
                *([] if self.quiet().empty else [_UNDISTURBED]),
                *self.skipped["reason"],
            ]
        )
        return table

    def summary_cells(self) -> Iterator[tuple[Mapping[Any, Any], list[str]]]:
        """The rows of `summary`, and their cells: found, false alerts, precision, delay, quiet."""
        quiet = {(row.contender, row.budget): row for row in self.quiet().itertuples()}
        for row in self.summary().to_dict("records"):
            calm = quiet.get((row["contender"], row["budget"]))
            figures = ("recall", "false_alerts", "precision", "delay_hours")
            undisturbed = f"{calm.rate:.2f}{'' if calm.within else ' !'}" if calm else ""
            yield row, [*(with_interval(row, name) for name in figures), undisturbed]

    def _swept_table(self) -> Table:
        """All contenders at the same realised false alerts."""
        found = self.at_rates().pivot(index="false_alerts", columns="contender")["recall_swept"]
        names = self.contenders["contender"].tolist()
        table = plain_table(
            "Events found at the same realised false alerts per machine-week (swept: read off the"
            " test weeks)", "false alerts", *names,
        )  # fmt: skip
        for rate, row in found.iterrows():
            table.add_row(f"{rate:g}", *(two_digits(row[name]) for name in names))
        return table

    def _family_table(self, families: pd.DataFrame) -> Table:
        """The first contender by family and magnitude: recall by budget, delay at the middle."""
        name, budgets = families["contender"].iloc[0], families["budget"].unique().tolist()
        middle = self.middle_budget()
        table = plain_table(
            f"{name}, by family and magnitude", "family", "events",
            *(f"found at {budget:g}" for budget in budgets), f"delay at {middle:g}, h",
        )  # fmt: skip
        mine = families[families["contender"] == name]
        for family, group in mine.groupby("family"):
            for magnitude in magnitudes(group):
                rows = group[group["magnitude"] == magnitude].set_index("budget")
                at = dict(zip(rows.index, rows.to_dict("records"), strict=True))
                table.add_row(
                    str(family) if magnitude == ALL else f"  {magnitude}",
                    str(at[middle]["events"]),
                    *(with_interval(at[budget], "recall") for budget in budgets),
                    with_interval(at[middle], "delay_hours"),
                )
        return table

    def _contender_table(self, families: pd.DataFrame) -> Table:
        """All contenders by family, at one budget."""
        middle = self.middle_budget()
        whole = families[(families["magnitude"] == ALL) & (families["budget"] == middle)]
        found = whole.pivot(index="family", columns="contender", values="recall")
        names = self.contenders["contender"].tolist()
        table = plain_table(f"Events found at budget {middle:g}, by family", "family", *names)
        for family, row in found.iterrows():
            table.add_row(str(family), *(two_digits(row[name]) for name in names))
        return table

    def middle_budget(self) -> float:
        """The budget of tables that show only one."""
        budgets = sorted(self.alerts["budget"].unique().tolist())
        return float(budgets[len(budgets) // 2])

    def write_scores(self, path: Path, interval_minutes: int) -> Path:
        """Write the scores of the test weeks for `anomaly.evaluation.vus_pr`, as an ``.npz``.

        ``contender`` (names); of each reading ``week, seed, machine_id, faulty``; ``score``,
        shape (contender, reading); ``interval_minutes``.
        """
        assert self.scores is not None
        of_each = [rows for _, rows in self.scores.groupby("contender", sort=False)]
        readings = of_each[0]
        with path.open("wb") as file:
            np.savez_compressed(
                file,
                contender=np.array(self.scores["contender"].unique().tolist()),
                score=np.stack([rows["score"].to_numpy(float) for rows in of_each]),
                interval_minutes=np.array(interval_minutes),
                week=readings["week"].to_numpy(np.int32),
                seed=readings["seed"].to_numpy(np.int32),
                machine_id=readings["machine_id"].to_numpy(np.int64),
                faulty=readings["faulty"].to_numpy(bool),
            )
        return path

    def picture(self, path: Path) -> Path:
        """Draw recall against false alerts: lines are swept, dots fixed on training.

        Raises
        ------
        PictureError
            As `check_picture`.
        """
        check_picture(path)
        figures = importlib.import_module("matplotlib.figure")
        figure = figures.Figure(figsize=(9, 6), layout="constrained")
        axes = figure.subplots()
        fixed = self.summary()
        for name, curve in self.curves().groupby("contender", sort=False):
            swept = curve.sort_values("false_alerts")
            (line,) = axes.plot(swept["false_alerts"], swept["recall"], label=name, lw=1.5)
            dots = fixed[fixed["contender"] == name]
            axes.plot(dots["false_alerts"], dots["recall"], "o", color=line.get_color())
        axes.set(
            xscale="symlog", xlim=(0, 20), ylim=(0, 1),
            xlabel="realised false alerts per machine-week", ylabel="event recall",
            title="Lines: swept. Dots: thresholds fixed on training readings",
        )  # fmt: skip
        axes.set_xticks([0, *RATES, 10], labels=[f"{rate:g}" for rate in (0, *RATES, 10)])
        axes.grid(alpha=0.3)
        axes.legend(loc="lower right")
        figure.savefig(path, dpi=120)
        return path

    def _groups(self) -> Iterator[tuple[str, float, pd.DataFrame, pd.DataFrame]]:
        injected = self.alerts[self.alerts["seed"].notna()]
        alerts = injected.assign(real=injected["alerts"] - injected["false"])
        pairs = alerts[["contender", "budget"]].drop_duplicates()
        for name, budget in pairs.itertuples(index=False):
            events, counted = (
                frame[(frame["contender"] == name) & (frame["budget"] == budget)]
                for frame in (self.events, alerts)
            )
            yield name, budget, events, counted


class _Units:
    """Units of the bootstrap: each is one seed of one week. All contenders share the draws."""

    def __init__(self, alerts: pd.DataFrame) -> None:
        injected = alerts.loc[alerts["seed"].notna(), ["week", "seed"]].drop_duplicates()
        self._index = pd.MultiIndex.from_frame(injected.astype("int64"))
        self._counts = bootstrap_counts(injected["week"].to_numpy(), draws=_DRAWS)

    def ratio(
        self, name: str, frame: pd.DataFrame, numerator: str, denominator: str | None
    ) -> dict[str, float]:
        """A ratio of sums and its interval; without a denominator the number of rows is used."""
        rows = frame.assign(above=frame[numerator], below=frame[denominator] if denominator else 1)
        unit = self._unit(frame)
        above, below = (
            np.bincount(unit, weights=rows[side].to_numpy(float), minlength=len(self._index))
            for side in ("above", "below")
        )
        low, high = ratio_interval(above, below, self._counts)
        value = above.sum() / below.sum() if below.sum() else float("nan")
        return {name: float(value), f"{name}_low": low, f"{name}_high": high}

    def median(self, name: str, frame: pd.DataFrame) -> dict[str, float]:
        """A median over the rows and its interval."""
        low, high = median_interval(frame[name], self._unit(frame), self._counts)
        return {name: float(frame[name].median()), f"{name}_low": low, f"{name}_high": high}

    def _unit(self, frame: pd.DataFrame) -> npt.NDArray[np.int64]:
        keys = pd.MultiIndex.from_frame(frame[["week", "seed"]].astype("int64"))
        return np.asarray(self._index.get_indexer(keys), np.int64)


def plain_table(title: str, first: str, *headings: str) -> Table:
    """A table without lines; all columns but the first are set to the right."""
    table = Table(
        title=title, title_justify="left", caption_justify="left",
        box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False,
    )  # fmt: skip
    table.add_column(first, no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right")
    return table


def magnitudes(families: pd.DataFrame) -> list[str]:
    """The whole family, then the magnitudes that occur; labelled events have none."""
    there = set(families["magnitude"])
    return [ALL, *(magnitude.value for magnitude in Magnitude if magnitude.value in there)]


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    values = table.astype(object).where(table.notna() & ~table.isin([np.inf, -np.inf]), None)
    return [{str(name): value for name, value in row.items()} for row in values.to_dict("records")]


def with_interval(row: Mapping[Any, Any], name: str) -> str:
    """A figure and its interval, with the only blank between them: a narrow column breaks there."""
    if pd.isna(row[name]):
        return "-"
    low, high = (two_digits(row[f"{name}_{end}"]) for end in ("low", "high"))
    return f"{two_digits(row[name])} [{low},{high}]"


def two_digits(value: object) -> str:
    """A number with two digits, or a dash where there is none."""
    return "-" if pd.isna(number := float(str(value))) else f"{number:.2f}"


def _read_off(curve: pd.DataFrame, rate: float) -> float:
    best = curve.groupby("false_alerts")["recall"].max().sort_index().cummax()
    return float(np.interp(rate, best.index, best, left=np.nan))
