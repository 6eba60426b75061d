"""Judge the product's detector beside baselines, on a deployment's readings or labelled ones."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd

from anomaly.errors import TrainingError
from anomaly.evaluation.contenders import baselines
from anomaly.evaluation.labelled import as_labelled, judge_labelled, read_labelled
from anomaly.evaluation.product import SignalsContender
from anomaly.evaluation.protocol import Contender, evaluate
from anomaly.evaluation.report import EvaluationReport
from anomaly.postgres.database import TRAINER, Database
from anomaly.postgres.labelled import read_labels
from anomaly.postgres.machines import find_machine, trainable_machines
from anomaly.postgres.readings import WindowReader
from anomaly.quality import profile
from anomaly.settings import Settings
from anomaly.windows import Window


def evaluate_deployment(
    database: Database,
    settings: Settings,
    now: datetime,
    *,
    window: Window | None = None,
    machines: Sequence[int] = (),
    budgets: Sequence[float],
    seeds: int,
    keep_scores: bool = False,
) -> EvaluationReport:
    """Inject faults into readings of the meter table, and judge who finds them.

    Parameters
    ----------
    window : Window, optional
        Default: all readings that are due.
    machines : sequence of int, optional
        Default: every machine that has moved; a dead one has nothing to find.
    keep_scores : bool
        Whether the report holds the scores of the test weeks.

    Raises
    ------
    MachineError
        When a machine is not known, or its time zone is none.
    TrainingError
        When there is too little to train on, or nothing at all.
    """
    reader = WindowReader(settings)
    with database.transaction(TRAINER, read_only=True) as transaction:
        shape = reader.source.describe(transaction)
        extent = reader.source.extent(transaction, shape)
        newest = reader.source.previous_reading(transaction, shape, now)
    if extent is None or newest is None:
        raise TrainingError(f"{settings.source_name} has no readings: load some first")
    everything = Window(extent[0], newest + settings.interval).due(now, settings.interval)
    chosen = window or everything
    shape = reader.prepare(database, chosen, TRAINER)
    with database.transaction(TRAINER, read_only=True) as transaction:
        known = trainable_machines(transaction)
        asked = [find_machine(known, str(machine)) for machine in machines]
        measured = reader.read(transaction, shape, chosen).frame
    readings = measured[measured["machine_id"].isin(asked or _moving(measured))]
    silent = sorted(set(asked) - set(readings["machine_id"].tolist()))
    if silent or readings.empty:
        who = f"machine {silent[0]}" if silent else "a machine that moves"
        raise TrainingError(
            f"there is no reading of {who} in {chosen}: there are readings in {everything}"
        )
    zone = str(known["time_zone"].mode().iloc[0])
    return evaluate(
        readings[["utc_timestamp", "machine_id", "reading"]],
        contenders(settings, zone),
        settings=settings,
        zone=zone,
        seeds=seeds,
        budgets=budgets,
        keep_scores=keep_scores,
    )


def evaluate_labels(
    labels: str,
    database: Database | None,
    settings: Settings,
    *,
    budgets: Sequence[float],
    keep_scores: bool = False,
) -> EvaluationReport:
    """Judge on readings with a column of labels.

    Parameters
    ----------
    labels : str
        Path of a CSV file, or a table or view of `database` as ``schema.table``.
    database : Database or None
        None for a file. The table is read with the log-in's own rights.

    Raises
    ------
    SourceError
        When there is no such table, it may not be read, or it is not what the settings say.
    """
    if database is None:
        labelled = read_labelled(Path(labels), settings)
    else:
        with database.transaction(read_only=True) as transaction:
            table = read_labels(transaction, labels, settings)
        labelled = as_labelled(table, settings)
    return judge_labelled(
        labelled,
        contenders(settings, "UTC"),
        settings=settings,
        budgets=budgets,
        keep_scores=keep_scores,
    )


def contenders(settings: Settings, zone: str) -> list[Contender]:
    """Ours first, then the baselines; one whose library is missing is left out, with the reason."""
    return [SignalsContender(settings, zone), *baselines(settings, zone)]


def _moving(measured: pd.DataFrame) -> list[int]:
    still = profile(measured)["flat_share"].to_numpy()
    ids = np.unique(measured["machine_id"].to_numpy())
    return [int(machine) for machine in ids[still < 0.9]]
