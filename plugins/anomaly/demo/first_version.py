"""Train the first version of a demo, and put it in force."""

from datetime import datetime

from anomaly.database.connection import Database
from anomaly.database.model_in_force import champion
from anomaly.lifecycle.promotion import Promoter
from anomaly.lifecycle.training import Trainer
from anomaly.settings import Settings


def train_first_version(
    database: Database, settings: Settings, now: datetime, *, by: str
) -> int | None:
    """Train on the readings before `now`; return the version, or None if one is in force.

    Raises
    ------
    TrainingError
        When there is too little history.
    """
    with database.transaction(read_only=True) as transaction:
        if champion(transaction):
            return None
    trainer = Trainer(database, settings)
    report = trainer.challenge(trainer.default_window(now), by=by, due=now)
    Promoter(database, settings).promote(report.version, by=by, reason="first version")
    return report.version
