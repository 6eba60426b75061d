"""Compare the product's detector with baselines, on a deployment's readings, sets or labels."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from anomaly.database.connection import TRAINER, Database
from anomaly.database.labelled_readings import read_labels
from anomaly.database.machines import find_machine, trainable_machines
from anomaly.detectors.signals.signals import NAMES
from anomaly.detectors.signals.training import RULES
from anomaly.errors import TrainingError
from anomaly.evaluation.baselines import baselines
from anomaly.evaluation.labelled_readings import as_labelled, judge_labelled, read_labelled
from anomaly.evaluation.our_detector import SignalsContender
from anomaly.evaluation.protocol import Contender, evaluate
from anomaly.evaluation.reading_sets import ReadingSet, named, side_by_side
from anomaly.evaluation.report import EvaluationReport
from anomaly.evaluation.sets_report import SetReport, SetsReport
from anomaly.evaluation.subsequence_baselines import KMeansCourses, SubsequencePCA
from anomaly.evaluation.train_test_weeks import (
    MOSTLY_FLAT,
    Injector,
    finite_readings,
    spread_splits,
)
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
    window, machines
        As for `deployment_set`.
    keep_scores : bool
        Whether the report holds the scores of the test weeks.

    Raises
    ------
    MachineError, TrainingError
        As `deployment_set`, and when there is too little to train on.
    """
    found = deployment_set(database, settings, now, window=window, machines=machines)
    return evaluate(
        found.readings,
        contenders(settings.meter, settings.training, found.zone),
        meter=settings.meter,
        zone=found.zone,
        seeds=seeds,
        budgets=budgets,
        keep_scores=keep_scores,
    )


def deployment_set(
    database: Database,
    settings: Settings,
    now: datetime,
    *,
    window: Window | None = None,
    machines: Sequence[int] = (),
) -> ReadingSet:
    """Readings of the meter table, as a set to evaluate on.

    Parameters
    ----------
    window : Window, optional
        Default: all readings that are due.
    machines : sequence of int, optional
        Default: every machine that is not nearly always flat, for there is nothing to find on
        others.

    Raises
    ------
    MachineError
        When a machine is not known, or its time zone does not exist.
    TrainingError
        When there is no reading of such machines.
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
    name = settings.meter_table.source_name
    return ReadingSet(name, finite_readings(readings), settings, zone, known)


def evaluate_sets(
    sets: Sequence[ReadingSet],
    *,
    budgets: Sequence[float],
    seeds: int,
    weeks: int,
    leave_out: bool = False,
) -> SetsReport:
    """Inject the faults of both injectors into several sets, and report which contender finds them.

    Parameters
    ----------
    seeds : int
        Injections per test week.
    weeks : int
        Test weeks per set, spread over its readings (`spread_splits`).
    leave_out : bool
        Whether the contenders are the product's detector whole, and with each signal and rule left
        out, instead of the baselines.

    Raises
    ------
    TrainingError
        When a set is too short.
    """
    jobs = [(chosen, injector) for chosen in sets for injector in Injector]
    work = partial(_evaluate_set, budgets=budgets, seeds=seeds, weeks=weeks, leave_out=leave_out)
    return SetsReport(side_by_side(work, jobs))


def _evaluate_set(
    chosen: ReadingSet,
    injector: Injector,
    *,
    budgets: Sequence[float],
    seeds: int,
    weeks: int,
    leave_out: bool,
) -> SetReport:
    meter, training = chosen.settings.meter, chosen.settings.training
    with named(chosen.name):
        splits = spread_splits(
            chosen.readings,
            meter=meter,
            count=weeks,
            train=timedelta(weeks=training.training_weeks),
        )
        report = evaluate(
            chosen.readings,
            (left_out if leave_out else contenders)(meter, training, chosen.zone),
            meter=meter,
            zone=chosen.zone,
            splits=splits,
            seeds=seeds,
            budgets=budgets,
            injector=injector,
        )
    return SetReport(chosen.name, injector, report)


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
    return [
        SignalsContender(meter, training, zone),
        *baselines(meter, training, zone),
        SubsequencePCA(meter, training, zone),
        KMeansCourses(meter, training, zone),
    ]


def left_out(meter: MeterSettings, training: TrainingSettings, zone: str) -> list[Contender]:
    """The product's detector whole, then without each of its signals and rules."""
    parts = (*NAMES, *RULES)
    without = [SignalsContender(meter, training, zone, without=name) for name in parts]
    return [SignalsContender(meter, training, zone), *without]


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
