"""Machines that a window names and the deployment does not know yet: found, and registered."""

import re

from anomaly.database.connection import SCORER, Database, Transaction
from anomaly.database.machines import known_machines, register_machines
from anomaly.database.meter_table import LARGEST_ID, MeterSource, SourceShape
from anomaly.errors import SourceError
from anomaly.settings import Layout
from anomaly.windows import Window

_CANONICAL = re.compile(r"0|[1-9]\d*", re.ASCII)


def describe_source(
    database: Database,
    source: MeterSource,
    window: Window,
    role: str = SCORER,
    *,
    scan: bool = True,
    register: bool = True,
) -> SourceShape:
    """Describe the meter table, and register machines that are new in `window`.

    Parameters
    ----------
    scan : bool
        False: not the machines that only the rows of a long table name. Reading says whether
        there are any (`MeasuredWindow.unregistered`).
    register : bool
        False: nothing is written.
    """
    with database.transaction(role, read_only=True) as transaction:
        shape = source.describe(transaction)
        long = source.meter_table.source_layout is Layout.LONG
        skip = not register or (long and not scan)
        new = {} if skip else new_machines(transaction, source, shape, window)
    if new:
        with database.transaction(role) as transaction:
            register_machines(transaction, new, source.meter.source_timezone or "UTC")
    return shape


def new_machines(
    transaction: Transaction, source: MeterSource, shape: SourceShape, window: Window
) -> dict[str, int | None]:
    """Machines that are not registered, by their keys, with the id that each should have.

    Raises
    ------
    SourceError
        When a column is mapped to another id than it is registered with.
    """
    if source.meter_table.source_layout is Layout.WIDE:
        return _new_columns(transaction, source, shape)
    keys = source.unknown_machines(transaction, shape, window)
    return {key: int(key) if _is_id(key) else None for key in keys}


def _new_columns(
    transaction: Transaction, source: MeterSource, shape: SourceShape
) -> dict[str, int | None]:
    known = known_machines(transaction)
    numbers = dict(zip(known["source_key"], known["machine_id"], strict=True))
    for column, number in shape.machines.items():
        if (registered := numbers.get(column, number)) != number:
            raise SourceError(
                f"{source.meter_table.source_name}.{column} would be machine {number}, but is"
                f" registered as {registered}: give it that id in ANOMALY_SOURCE_MACHINES"
            )
    taken = {*numbers.values()}
    return {column: number for column, number in shape.machines.items() if number not in taken}


def _is_id(key: str) -> bool:
    """Whether a key is a number as everybody writes it, so that it can be the machine's id.

    "007", "+7", digits of other scripts and larger numbers are names.
    """
    return bool(_CANONICAL.fullmatch(key)) and int(key) <= LARGEST_ID
