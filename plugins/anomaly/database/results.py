"""The tables of verdicts: ``anomaly.anomaly_results``, its history, and their staging tables.

`COLUMNS` is the one place where the columns of a result are declared. COPY, staging, comparison
and history follow from it; ``tests/integration/test_result_columns.py`` compares the tables,
``anomaly.anomaly_results_as_of`` and the views of ``bi`` with it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from psycopg2.sql import SQL, Composable, Identifier, Literal
from sqlalchemy import RowMapping

from anomaly.database import binary_copy
from anomaly.database.connection import Transaction, int_array
from anomaly.database.machines import count_machines
from anomaly.readings.quality import QUALITY_NAMES
from anomaly.windows import Window


class Origin(StrEnum):
    """Why a verdict was written."""

    LIVE = "live"
    LATE = "late"
    BACKFILL = "backfill"


@dataclass(frozen=True)
class Column:
    """A column of a result.

    Attributes
    ----------
    kind : str
        Its type, as `anomaly.database.binary_copy.CopyInput` names it.
    is_verdict : bool
        It is part of the verdict: it depends only on the readings and the version map. If two
        attempts agree in these columns, nothing is written.
    """

    name: str
    kind: str
    is_verdict: bool = True


COLUMNS = (
    Column("machine_id", "int4", is_verdict=False),
    Column("utc_timestamp", "timestamptz", is_verdict=False),
    Column("reading", "float8"),
    Column("power_kw", "float8"),
    Column("power_diff", "float8"),
    Column("anomaly_score", "float8"),
    Column("threshold", "float8"),
    Column("anomaly", "int2"),
    Column("reason", "text"),
    Column("quality", "text"),
    Column("origin", "text", is_verdict=False),
    Column("model_version", "int4"),
    Column("expected_kw", "float8"),
    Column("features_version", "int2"),
    Column("energy_kwh", "float8"),
    Column("energy_hours", "float8"),
    Column("run_id", "int8", is_verdict=False),
    Column("scored_at", "timestamptz", is_verdict=False),
)
"""Columns of a result, in the order of COPY; the first two are its key."""

LARGEST_INTEGER = 2**31 - 1
VERDICT_COLUMNS = tuple(column.name for column in COLUMNS if column.is_verdict)

Columns = dict[str, npt.NDArray[Any]]
"""Columns of a table by name, as arrays of one length."""

CurrentVerdicts = Columns
"""Columns of the current verdicts.

``quality`` is a number of `Quality` (-1: a name that this version of the product does not know),
``reason`` is a hash (0: no reason), the others are as stored.
"""

Ranges = Mapping[int, tuple[datetime, datetime]]
"""First and last moment for each machine, both included."""

# COPY's output takes twice the memory of the arrays that are kept, so a fleet is read in parts.
# The size is chosen.
_MACHINES_AT_ONCE = 20_000

_ALL = SQL(", ").join(Identifier(column.name) for column in COLUMNS)
_BINARY_TYPES = {"int2": ">i2", "int4": ">i4", "int8": ">i8", "float8": ">f8", "text": ">i8"}

# By name, because the database's enum may have another order or more values.
_QUALITY_NUMBER = SQL("CASE r.quality {} ELSE -1 END").format(
    SQL(" ").join(
        SQL("WHEN {} THEN {}").format(Literal(name), Literal(number))
        for number, name in enumerate(QUALITY_NAMES)
    )
)
# The first half of md5 as a number. `anomaly.scoring.comparison` computes the same for an attempt.
_REASON_HASH = SQL(
    "CASE WHEN r.reason IS NULL THEN 0 ELSE ('x' || left(md5(r.reason), 16))::bit(64)::bigint END"
)


# Read -------------------------------------------------------------------------


def read_current(
    transaction: Transaction, window: Window, machines: Sequence[int] | None = None
) -> CurrentVerdicts:
    """Read the current verdicts of `machines` (default: all) in `window`.

    They cannot change under the publishing lock. If they were read before the lock, they have
    not changed as long as the ledger shows no later publication of the window.
    """
    count = count_machines(transaction) if machines is None else len(machines)
    parts = 1 + count // _MACHINES_AT_ONCE
    read = [_read_part(transaction, window, machines, parts, part) for part in range(parts)]
    return {name: np.concatenate([part.pop(name) for part in read]) for name in [*read[0]]}


def _read_part(
    transaction: Transaction,
    window: Window,
    machines: Sequence[int] | None,
    parts: int,
    part: int,
) -> CurrentVerdicts:
    every = SQL("SELECT machine_id FROM anomaly.machines")
    some = SQL("SELECT unnest({}::integer[]) AS machine_id")
    verdict = [column for column in COLUMNS if column.is_verdict]
    fields = [("machine_id", ">i4"), ("utc_timestamp", ">i8")]
    columns = transaction.copy_columns(
        "results/current",
        fields + [(column.name, _binary_type(column)) for column in verdict],
        verdict=SQL(", ").join(map(_as_number, verdict)),
        machines=every if machines is None else some.format(Literal(int_array(machines))),
        parts=Literal(parts),
        part=Literal(part),
        start=Literal(window.start),
        end=Literal(window.end),
    )
    return columns | {"utc_timestamp": binary_copy.as_timestamps(columns["utc_timestamp"])}


def _binary_type(column: Column) -> str:
    return ">i4" if column.name == "quality" else _BINARY_TYPES[column.kind]


def _as_number(column: Column) -> Composable:
    """SQL for a column as a number of fixed width: NULL as NaN, a text as its hash."""
    if column.name == "quality":
        return _QUALITY_NUMBER
    if column.name == "reason":
        return _REASON_HASH
    number = SQL("coalesce({}, 'NaN')") if column.kind == "float8" else SQL("{}")
    return number.format(Identifier("r", column.name))


def read_for_mismatches(
    transaction: Transaction, window: Window, machines: Sequence[int] | None = None
) -> pd.DataFrame:
    """Read the columns of verdicts in a window that reconciliation compares with readings.

    Parameters
    ----------
    machines : sequence of int, optional
        Default: all.

    Returns
    -------
    DataFrame
        ``machine_id``, ``utc_timestamp``, ``reading``, ``power_diff``, ``model_version``,
        ``features_version`` and ``quality`` (a number of `Quality`; -1: a name that this version
        of the product does not know).
    """
    columns = transaction.copy_columns(
        "results/for_mismatches",
        [
            ("machine_id", ">i4"), ("utc_timestamp", ">i8"), ("reading", ">f8"),
            ("power_diff", ">f8"), ("model_version", ">i4"), ("features_version", ">i2"),
            ("quality", ">i4"),
        ],
        quality=_QUALITY_NUMBER,
        machines=Literal(None if machines is None else int_array(machines)),
        start=Literal(window.start),
        end=Literal(window.end),
    )  # fmt: skip
    return pd.DataFrame(columns).assign(utc_timestamp=_utc_stamps(columns))


def judged_readings(
    transaction: Transaction, window: Window, machines: Sequence[int] | None = None
) -> pd.DataFrame:
    """Readings behind the verdicts in `window`, of `machines` (default: all).

    Returns
    -------
    DataFrame
        ``machine_id``, ``utc_timestamp``, ``ingested_at`` (int64, always the minimum: not
        known) and ``reading``, in the form of the meter table.
    """
    columns = transaction.copy_columns(
        "results/judged_readings",
        [("machine_id", ">i4"), ("utc_timestamp", ">i8"), ("reading", ">f8")],
        machines=Literal(None if machines is None else int_array(machines)),
        start=Literal(window.start),
        end=Literal(window.end),
    )
    return pd.DataFrame(
        {
            "utc_timestamp": _utc_stamps(columns),
            "ingested_at": np.iinfo(np.int64).min,
            "machine_id": columns["machine_id"],
            "reading": columns["reading"],
        }
    )


def verdicts_page(
    transaction: Transaction,
    *,
    machine_id: int | None,
    start: datetime | None,
    end: datetime | None,
    anomaly: int | None,
    after: tuple[int, datetime] | None,
    rows: int,
) -> Sequence[RowMapping]:
    """Verdicts after a machine and time, by machine, then time, as ``bi.verdicts`` has them."""

    def page(
        machine: int | None, from_machine: int | None, since: datetime | None, most: int
    ) -> Sequence[RowMapping]:
        return transaction.rows(
            "results/page",
            machine_id=machine,
            from_machine=from_machine,
            start="-infinity" if since is None else since.isoformat(),
            end="infinity" if end is None else end.isoformat(),
            anomaly=anomaly,
            rows=most,
        )

    if after is None:
        return page(machine_id, None, start, rows)
    # The rest of that machine, then the machines behind it: one condition for both would read
    # the machine from its beginning.
    number, moment = after
    following = moment + timedelta(microseconds=1)
    found = []
    if machine_id in (None, number):
        found = [*page(number, None, max(following, start or following), rows)]
    if len(found) < rows and number < LARGEST_INTEGER:
        found += page(machine_id, number + 1, start, rows - len(found))
    return found


def verdicts_between(
    transaction: Transaction, machine_id: int, start: datetime, end: datetime
) -> Sequence[RowMapping]:
    """Verdicts of a machine in a range, both ends included, to show to people."""
    return transaction.rows("results/between", machine_id=machine_id, start=start, end=end)


def newest_per_machine(transaction: Transaction) -> Sequence[RowMapping]:
    """Each machine with ``newest_verdict`` (its time) and ``quality``; NULL if it has none."""
    return transaction.rows("results/newest_per_machine")


def counts_per_machine(transaction: Transaction) -> Sequence[RowMapping]:
    """Each machine's number of verdicts and anomalies, and the first and last of their times."""
    return transaction.rows("results/counts_per_machine")


# How far a change reaches ---------------------------------------------------


def contradicted_machines(
    transaction: Transaction, machines: Sequence[int], window: Window
) -> list[int]:
    """Machines with a verdict in `window` whose reading is contradicted by later ones."""
    rows = transaction.rows(
        "results/contradicted_in",
        machines=list(machines),
        start=window.start,
        end=window.end,
    )
    return [row["machine_id"] for row in rows]


def last_verdicts_after(
    transaction: Transaction,
    changed_at: Mapping[int, datetime],
    end: datetime,
    reach: timedelta,
    max_gap: timedelta,
) -> dict[int, datetime]:
    """Time of the last verdict at or after `end` that a change may affect, for each machine.

    This is the last verdict up to `reach` after the change. The verdict right after it counts
    too, unless it is more than `max_gap` later.
    """
    rows = transaction.rows(
        "results/reached_after",
        end=end,
        machines=list(changed_at),
        changed_at=list(changed_at.values()),
        reach=reach,
        max_gap=max_gap,
    )
    return {row["machine_id"]: row["until"] for row in rows}


# For incidents ------------------------------------------------------------------


def abnormal_verdicts(transaction: Transaction, ranges: Ranges) -> pd.DataFrame:
    """Verdicts that are abnormal or follow a gap, in the range of their machine.

    Returns
    -------
    DataFrame
        ``machine_id``, ``utc_timestamp``, ``anomaly``, ``anomaly_score``, ``threshold``,
        ``reason``, ``quality`` and ``previous_at`` (time of the machine's verdict before; NaT
        if there is none).
    """
    types: Any = {
        "utc_timestamp": "datetime64[us, UTC]",
        "previous_at": "datetime64[us, UTC]",
        "anomaly_score": float,
    }
    return transaction.frame("results/abnormal", **as_arrays(ranges)).astype(types)


def verdicts_about(
    transaction: Transaction,
    numbers: Sequence[int],
    machines: Sequence[int],
    spans: Sequence[tuple[datetime, datetime]],
    look_back: timedelta,
) -> pd.DataFrame:
    """All verdicts in spans of machines, from `look_back` before each span.

    The verdict directly before each span is always included.

    Parameters
    ----------
    numbers : sequence of int
        Number of each span in the result.

    Returns
    -------
    DataFrame
        ``number``, ``utc_timestamp`` (naive, UTC), ``alarm`` and ``sound`` (0 or 1), ``power_kw``
        and ``expected_kw`` (NaN: not known), sorted by number and time.
    """
    columns = transaction.copy_columns(
        "results/about_episodes",
        [
            ("number", ">i4"), ("utc_timestamp", ">i8"), ("alarm", ">i1"), ("sound", ">i1"),
            ("power_kw", ">f8"), ("expected_kw", ">f8"),
        ],
        numbers=Literal(int_array(numbers)),
        machines=Literal(int_array(machines)),
        firsts=Literal([first for first, _ in spans]),
        lasts=Literal([last for _, last in spans]),
        look_back=Literal(look_back),
    )  # fmt: skip
    stamps = binary_copy.as_timestamps(columns["utc_timestamp"])
    return pd.DataFrame(columns | {"utc_timestamp": stamps})


def newest_verdicts(transaction: Transaction, machines: Sequence[int]) -> Sequence[RowMapping]:
    """Each machine's newest verdict (``last_at``), with ``active_to`` and ``time_zone``."""
    return transaction.rows("results/newest_of", machines=list(machines))


def machines_after_gap(
    transaction: Transaction, machines: Sequence[int], end: datetime
) -> list[int]:
    """Machines whose first verdict at or after `end` follows a gap."""
    rows = transaction.rows("results/first_after", machines=list(machines), end=end)
    return [row["machine_id"] for row in rows]


def as_arrays(ranges: Ranges) -> dict[str, list[object]]:
    """Ranges of machines as the parameters of a query."""
    return {
        "machines": list(ranges),
        "starts": [start for start, _ in ranges.values()],
        "ends": [end for _, end in ranges.values()],
    }


# Write --------------------------------------------------------------------------


def insert_new(transaction: Transaction, verdicts: pd.DataFrame) -> None:
    """Insert verdicts on readings that have none yet, and create the partitions (months) for them.

    Parameters
    ----------
    verdicts : DataFrame
        All of `COLUMNS`, sorted by machine and time.
    """
    stamps = verdicts["utc_timestamp"]
    transaction.rows(
        "results/ensure_partitions",
        first=stamps.min().to_pydatetime(),
        last=stamps.max().to_pydatetime(),
    )
    transaction.copy_in("results/copy_new", _copy_input(verdicts), columns=_ALL)


def replace_changed(
    transaction: Transaction, parts: Sequence[pd.DataFrame], window: Window
) -> None:
    """Replace the changed verdicts of `window`; the old verdicts are copied to the history.

    Parameters
    ----------
    parts : sequence of DataFrame
        All of `COLUMNS`.
    """
    # In this order: copy, then index and analyse, because the planner knows nothing of a new
    # table; then the history, because it takes the old rows before they are updated.
    transaction.run("results/stage")
    for verdicts in parts:
        transaction.copy_in("results/copy_staged", _copy_input(verdicts), columns=_ALL)
    transaction.run("results/index_staged")
    span = {"start": Literal(window.start), "end": Literal(window.end)}
    transaction.run_composed(
        "results/supersede_changed", columns=_ALL, old_row=_row_of("r"), **span
    )
    # The key (the first two columns) never changes.
    changed = [Identifier(column.name) for column in COLUMNS[2:]]
    assignments = [
        SQL("{} = {}").format(name, Identifier("s", column.name))
        for name, column in zip(changed, COLUMNS[2:], strict=True)
    ]
    transaction.run_composed(
        "results/update_changed", assignments=SQL(", ").join(assignments), **span
    )


def retract(
    transaction: Transaction, gone: pd.DataFrame, window: Window, run_id: int, at: datetime
) -> int:
    """Move verdicts whose reading was deleted to the history; return how many were moved.

    Parameters
    ----------
    gone : DataFrame
        ``machine_id`` and ``utc_timestamp``.
    """
    kinds = [(column.name, column.kind) for column in COLUMNS[:2]]
    transaction.run("results/stage_retractions")
    transaction.copy_in("results/copy_retractions", binary_copy.CopyInput(gone, kinds))
    transaction.run("results/analyze_retractions")
    return transaction.run_composed(
        "results/retract",
        columns=_ALL,
        old_row=_row_of("gone"),
        start=Literal(window.start),
        end=Literal(window.end),
        retracted_at=Literal(at),
        run_id=Literal(run_id),
    )


def _row_of(table: str) -> Composable:
    return SQL(", ").join(Identifier(table, column.name) for column in COLUMNS)


def _copy_input(verdicts: pd.DataFrame) -> binary_copy.CopyInput:
    return binary_copy.CopyInput(verdicts, [(column.name, column.kind) for column in COLUMNS])


def _utc_stamps(columns: Columns) -> pd.Series:
    naive = pd.Series(binary_copy.as_timestamps(columns["utc_timestamp"]))
    stamps: pd.Series = naive.dt.tz_localize("UTC")
    return stamps
