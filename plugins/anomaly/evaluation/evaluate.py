"""Compare the product's detector with baselines, on a deployment's readings or labelled ones."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd

from anomaly.database.connection import TRAINER, Database
from anomaly.database.labelled_readings import read_labels
from anomaly.database.machines import find_machine, trainable_machines
from anomaly.errors import TrainingError
from anomaly.evaluation.baselines import baselines
from anomaly.evaluation.labelled_readings import as_labelled, judge_labelled, read_labelled
from anomaly.evaluation.our_detector import SignalsContender
from anomaly.evaluation.protocol import Contender, evaluate
from anomaly.evaluation.report import EvaluationReport
from anomaly.evaluation.train_test_weeks import MOSTLY_FLAT
from anomaly.readings.meter_faults import profile_machines
from anomaly.scoring.window_reader import WindowReader
from anomaly.settings import MeterSettings, Settings, TrainingSettings
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
    """Inject faults into readings of the meter table, and report which contender finds them.

    Parameters
    ----------
    window : Window, optional
        Default: all readings that are due.
    machines : sequence of int, optional
        Default: every machine that is not nearly always flat, for there is nothing to find on
        others.
    keep_scores : bool
        Whether the report holds the scores of the test weeks.

    Raises
    ------
    MachineError
        When a machine is not known, or its time zone does not exist.
    TrainingError
        When there is too little to train on, or nothing.
    """
    reader = WindowReader(settings.meter_table, settings.meter)
    everything = _due_readings(reader, database, settings, now)
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
        contenders(settings.meter, settings.training, zone),
        meter=settings.meter,
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
    """Compare contenders on readings with a column of labels.

    Parameters
    ----------
    labels : str
        Path of a CSV file, or a table or view of `database` as ``schema.table``.
    database : Database or None
        None for a file. The table is read with the log-in's own rights.

    Raises
    ------
    SourceError
        When the table does not exist, may not be read, or is not as the settings say.
    """
    if database is None:
        labelled = read_labelled(Path(labels), settings.meter_table, settings.meter)
    else:
        with database.transaction(read_only=True) as transaction:
            table = read_labels(transaction, labels, settings.meter_table)
        labelled = as_labelled(table, settings.meter_table, settings.meter)
    return judge_labelled(
        labelled,
        contenders(settings.meter, settings.training, "UTC"),
        meter=settings.meter,
        budgets=budgets,
        keep_scores=keep_scores,
    )


def contenders(meter: MeterSettings, training: TrainingSettings, zone: str) -> list[Contender]:
    """The product's detector, then the baselines."""
    return [SignalsContender(meter, training, zone), *baselines(meter, training, zone)]


def _due_readings(
    reader: WindowReader, database: Database, settings: Settings, now: datetime
) -> Window:
    """From the first reading of the meter table to the end of the newest interval that is due."""
    with database.transaction(TRAINER, read_only=True) as transaction:
        shape = reader.source.describe(transaction)
        extent = reader.source.extent(transaction, shape)
        newest = reader.source.previous_reading(transaction, shape, now)
    if extent is None or newest is None:
        raise TrainingError(f"{settings.meter_table.source_name} has no readings: load some first")
    interval = settings.meter.interval
    return Window(extent[0], newest + interval).due(now, interval)


def _moving(measured: pd.DataFrame) -> list[int]:
    flat_share = profile_machines(measured)["flat_share"].to_numpy()
    ids = np.unique(measured["machine_id"].to_numpy())
    return [int(machine) for machine in ids[flat_share < MOSTLY_FLAT]]
