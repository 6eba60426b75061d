"""The table ``anomaly.labels``: what people said about a machine and a range of time."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import RowMapping

from anomaly.database.connection import Transaction


def label_row(transaction: Transaction, label_id: int) -> RowMapping | None:
    """One label, also if it was taken back; None if no label has that number."""
    rows = transaction.rows("labels/one", label_id=label_id)
    return rows[0] if rows else None


def labels_during(
    transaction: Transaction,
    machines: Sequence[int],
    start: datetime | None,
    end: datetime | None,
    through: int | None = None,
) -> Sequence[RowMapping]:
    """Labels of machines that overlap a range, in the order in which they were given.

    Parameters
    ----------
    through : int, optional
        Ignore labels with a higher number. A label that was taken back after this number
        still counts.
    """
    return transaction.rows(
        "labels/during", machines=list(machines), start=start, end=end, through=through
    )


def list_labels(
    transaction: Transaction,
    *,
    machine_id: int | None,
    start: datetime | None,
    end: datetime | None,
    withdrawn: bool,
) -> Sequence[RowMapping]:
    """Labels to show to people, newest first; `withdrawn`: also those that were taken back."""
    return transaction.rows(
        "labels/list", machine_id=machine_id, start=start, end=end, withdrawn=withdrawn
    )


def newest_label(transaction: Transaction) -> int:
    """The number of the newest label or withdrawal; 0 before the first."""
    return int(transaction.value("labels/newest"))


def write_label(
    transaction: Transaction,
    machine_id: int,
    start: datetime,
    end: datetime,
    label: str,
    *,
    note: str,
    by: str,
) -> RowMapping:
    """Write a label, unless the same label exists; return its ``label_id`` and ``machine``."""
    said = {
        "machine_id": machine_id,
        "start": start,
        "end": end,
        "label": label,
        "note": note,
        "by": by,
    }
    rows = transaction.rows("labels/same", **said) or transaction.rows("labels/insert", **said)
    return rows[0]


def withdraw_label(transaction: Transaction, label_id: int, *, by: str, at: datetime) -> bool:
    """Take a label back; False if it was taken back already or does not exist."""
    return bool(transaction.rows("labels/withdraw", label_id=label_id, by=by, at=at))
