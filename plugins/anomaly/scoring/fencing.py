"""Fencing: an attempt never publishes over what has happened since it began to read.

Airflow may run two attempts of one task at once, and either may be the older one. So an attempt
draws a token before it reads, and publishes only if nothing that it has seen is outdated. Else it
starts again from reading (docs/adr/0002).
"""

from dataclasses import dataclass

from anomaly.database.connection import Transaction
from anomaly.database.model_in_force import InForce, versions_in_force
from anomaly.database.scoring_runs import count_overlapping, newer_overlapping
from anomaly.errors import StaleAttemptError
from anomaly.windows import Window


@dataclass(frozen=True)
class Fence:
    """What an attempt saw of the ledger and the version map when it began to read.

    Attributes
    ----------
    run_id : int
        Its token, drawn before anything was read.
    versions : tuple of InForce
        The part of the version map that judges.
    runs_seen : int
        Ledger rows that overlapped the window.
    machines : tuple of int or None
        Only runs of these count; None: all.
    """

    run_id: int
    window: Window
    versions: tuple[InForce, ...]
    runs_seen: int
    machines: tuple[int, ...] | None = None

    def refuse_if_overtaken(self, transaction: Transaction, written: Window) -> None:
        """Refuse to publish what is outdated; called under the publishing lock.

        Parameters
        ----------
        written : Window
            All that is about to be written: the window, and what is judged again around it.

        Raises
        ------
        StaleAttemptError
            When a newer attempt has published an overlapping window, an older one has
            published since this one read, or the version map has changed.
        """
        newer = newer_overlapping(transaction, self.run_id, written, self.machines)
        if newer is not None:
            raise StaleAttemptError(
                f"run {newer} has published an overlapping window since run"
                f" {self.run_id} began to read {self.window}: it is read again"
            )
        # Tokens tell in which order attempts began. An attempt with an older token may have
        # published while this one was reading: only the number of rows shows that.
        if count_overlapping(transaction, self.window, self.machines) != self.runs_seen:
            raise StaleAttemptError(
                f"an older run has published an overlapping window since run {self.run_id} read"
                f" {self.window}: it is read again"
            )
        if versions_in_force(transaction, self.window) != self.versions:
            raise StaleAttemptError(
                f"another model version was put in force for {self.window} since run"
                f" {self.run_id} began: it is scored again"
            )
