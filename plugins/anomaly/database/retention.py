"""Delete old rows: months of results, replaced verdicts, and rows of the ledger."""

from datetime import datetime

from anomaly.database.alerts import forget_empty_messages
from anomaly.database.connection import Transaction


def drop_results_before(transaction: Transaction, moment: datetime) -> int:
    """Drop the months of results that end before `moment`; return how many.

    The caller holds the publishing lock.
    """
    return int(transaction.value("retention/drop_results", moment=moment))


def delete_history_before(transaction: Transaction, moment: datetime, most: int) -> int:
    """Delete at most so many verdicts that were replaced before `moment`; return how many."""
    return int(transaction.value("retention/delete_history", moment=moment, most=most))


def delete_alerts_before(transaction: Transaction, moment: datetime, most: int) -> int:
    """Delete at most so many events of alerts from before `moment`; return how many.

    Those of incidents that last stay. Messages that tell nothing any more go, too.
    """
    deleted = transaction.run("retention/delete_alerts", moment=moment, most=most)
    forget_empty_messages(transaction)
    return deleted


def delete_ledger_before(transaction: Transaction, moment: datetime, most: int) -> int:
    """Delete at most so many rows of the ledger from before `moment`; return how many.

    The newest stay: they say how far scoring has come.
    """
    return int(transaction.value("retention/delete_ledger", moment=moment, most=most))
