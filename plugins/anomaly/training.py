"""Train a model version, register it, and put it in force."""

import getpass
import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from anomaly.detector import Detector
from anomaly.drift import Reference
from anomaly.errors import TrainingError
from anomaly.forest import PrototypeDetector, fit_forest
from anomaly.incidents import NOT_NORMAL, Label
from anomaly.model import Model
from anomaly.postgres.database import TRAINER, Database
from anomaly.postgres.incidents import labels_during
from anomaly.postgres.machines import known_machines
from anomaly.postgres.readings import WindowReader
from anomaly.postgres.versions import (
    begin_draft,
    end_draft,
    hold_draft,
    orphaned_drafts,
    promote,
    register_version,
)
from anomaly.quality import judge, profile
from anomaly.registry import Registry, artefact_files, library_versions
from anomaly.schema import Quality
from anomaly.settings import DetectorName, Settings
from anomaly.signal_detector import SignalDetector
from anomaly.windows import Window

_PARAMETERS = (
    "detector", "alert_budget",
    "forest_trees", "forest_max_samples", "forest_contamination", "forest_one_hot_machines",
    "random_seed", "reading_kind", "interval_minutes", "max_gap_days", "stuck_margin_hours",
    "stuck_flat_share",
)  # fmt: skip


@dataclass(frozen=True)
class TrainingReport:
    """What a training made.

    Attributes
    ----------
    effective_from : datetime or None
        First reading time the version judges; None where it is not in force, or
        judges all time (see `promoted`).
    """

    version: int
    window: Window
    readings: int
    machines: int
    promoted: bool
    effective_from: datetime | None
    metrics: dict[str, Any]


class Trainer:
    """Trains model versions of one deployment."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self.database = database
        self.settings = settings
        self.registry = Registry(settings.models_url)
        self.reader = WindowReader(settings)

    def default_window(self, due: datetime | None = None) -> Window:
        """The last weeks before the newest days, which judge and are never trained on.

        Parameters
        ----------
        due : datetime, optional
            Readings from here on do not count yet; default: the newest reading counts.

        Raises
        ------
        TrainingError
            When the meter table is empty, or holds too little history.
        """
        with self.database.transaction(TRAINER, read_only=True) as transaction:
            shape = self.reader.source.describe(transaction)
            extent = self.reader.source.extent(transaction, shape)
        if extent is None:
            raise TrainingError(
                f"{self.settings.source_name} is empty: load readings first, for example with"
                " `anomaly ingest FILE.csv`"
            )
        first, last = extent
        newest = last + self.settings.interval
        end = min(newest, due or newest) - timedelta(days=self.settings.judging_days)
        start = max(first, end - timedelta(weeks=self.settings.training_weeks))
        self._require_history(start, end)
        return Window(start, end)

    def train(
        self, window: Window, *, by: str = "", put_in_force: bool = False, reason: str = ""
    ) -> TrainingReport:
        """Train on `window`, register the version, and put it in force if asked.

        Raises
        ------
        TrainingError
            When the window holds fewer days of readings than a training needs;
            nothing is registered then.
        """
        self._require_history(window.start, window.end)
        by = by or current_user()
        sound = self._sound_readings(window)
        model, estimator = self._fit(sound)
        metrics = _metrics(model, sound)
        version = self._register(model, estimator, window, sound, metrics, by)
        self.sweep()
        effective_from = None
        if put_in_force:
            effective_from = self.promote(version, by=by, reason=reason or "trained")
        return TrainingReport(
            version, window, len(sound), len(model.profiles), put_in_force, effective_from, metrics
        )

    def promote(self, version: int, *, by: str, reason: str) -> datetime | None:
        """Put a version in force from the next interval that is not yet scored."""
        with self.database.transaction(TRAINER) as transaction:
            return promote(transaction, version, self.settings.interval, by=by, reason=reason)

    def sweep(self) -> list[str]:
        """Remove what killed trainings and retired versions left; folders being written stay.

        Returns
        -------
        list of str
            The folders removed.
        """
        removed = []
        with self.database.transaction(TRAINER) as transaction:
            for draft in orphaned_drafts(transaction):
                self.registry.store.remove(draft.folder, draft.token)
                end_draft(transaction, draft)
                removed.append(draft.folder)
        return removed

    def _fit(self, sound: pd.DataFrame) -> tuple[Model, object]:
        """The model, and what scikit-learn trained for it."""
        profiles = profile(sound)
        detector, estimator = self._fit_detector(sound, profiles)
        model = Model(
            detector,
            profiles,
            self.settings.reading_kind.value,
            self.settings.interval_minutes,
            Reference.of(sound),
        )
        return model, estimator

    def _fit_detector(self, sound: pd.DataFrame, profiles: pd.DataFrame) -> tuple[Detector, object]:
        if self.settings.detector is DetectorName.PROTOTYPE:
            pipeline = fit_forest(sound, self.settings)
            return PrototypeDetector.compile(pipeline, self.settings), pipeline
        with self.database.transaction(TRAINER, read_only=True) as transaction:
            machines = known_machines(transaction)
        zones = dict(zip(machines["machine_id"], machines["time_zone"], strict=True))
        often_flat = profiles["flat_share"].to_numpy() > self.settings.stuck_flat_share
        detector = SignalDetector.fit(sound, self.settings, zones, often_flat)
        return detector, detector

    def _sound_readings(self, window: Window) -> pd.DataFrame:
        """The window's readings without meter faults, and without what people said was none.

        False alarms stay: that is how a new normal is learnt.
        """
        shape = self.reader.prepare(self.database, window, TRAINER)
        with self.database.transaction(TRAINER, read_only=True) as transaction:
            measured = self.reader.read(transaction, shape, window).frame
            machines = known_machines(transaction)["machine_id"].tolist()
            labels = labels_during(transaction, machines, window.start, window.end)
        if measured.empty:
            raise TrainingError(
                f"{self.settings.source_name} has no readings in {window}: choose another range"
            )
        self._require_history(
            measured["utc_timestamp"].min(),
            measured["utc_timestamp"].max() + self.settings.interval,
        )
        faulty = judge(measured, profile(measured), self.settings) >= Quality.STUCK
        left_out = faulty | _labelled(measured, labels)
        return measured[~left_out].reset_index(drop=True)

    def _require_history(self, start: datetime, end: datetime) -> None:
        days = (end - start) / timedelta(days=1)
        if days < self.settings.training_min_days:
            raise TrainingError(
                f"{max(days, 0):.1f} days of readings to train on, at least"
                f" {self.settings.training_min_days:g} are needed (the newest"
                f" {self.settings.judging_days:g} days judge and are left out): wait for"
                f" {self.settings.training_min_days - days:.1f} more days, load older readings,"
                " or set ANOMALY_TRAINING_MIN_DAYS"
            )

    def _register(
        self,
        model: Model,
        estimator: object,
        window: Window,
        sound: pd.DataFrame,
        metrics: dict[str, Any],
        by: str,
    ) -> int:
        details: dict[str, Any] = {
            "detector": model.detector.name,
            "trained_from": window.start,
            "trained_to": window.end,
            "readings": len(sound),
            "parameters": self.settings.model_dump(mode="json", include=set(_PARAMETERS)),
            "metrics": metrics,
            "library_versions": library_versions(),
            "registered_by": by,
        }
        with self.database.transaction(TRAINER) as transaction:
            draft = begin_draft(transaction, self.registry.highest_version(), by)
        with self.database.transaction(TRAINER) as transaction:
            hold_draft(transaction, draft)
            manifest = {"version": draft.version} | _plain(details)
            files = artefact_files(model, estimator, manifest)
            artefact = self.registry.write(draft.folder, files, draft.token)
            register_version(transaction, draft.version, artefact, details)
        return draft.version


def current_user() -> str:
    """Who runs this, for the record; in a container the account may have no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def _labelled(measured: pd.DataFrame, labels: Iterable[Label]) -> npt.NDArray[np.bool_]:
    """Readings in ranges that were real faults, maintenance or faults of the meter."""
    machine, stamps = measured["machine_id"], measured["utc_timestamp"]
    found = np.zeros(len(measured), dtype=bool)
    for label in labels:
        if label.label in NOT_NORMAL:
            mine = machine == label.machine_id
            if label.start is not None:
                mine &= stamps >= label.start
            if label.end is not None:
                mine &= stamps < label.end
            found |= mine.to_numpy()
    return found


def _plain(details: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in details.items()
    }


def _metrics(model: Model, sound: pd.DataFrame) -> dict[str, Any]:
    anomaly = model.detector.score(sound, np.ones(len(sound), dtype=bool)).anomaly
    shares = pd.Series(anomaly).groupby(sound["machine_id"].to_numpy()).mean()
    return {
        "threshold": model.detector.threshold,
        "anomaly_share": float(anomaly.mean()),
        "anomaly_share_by_machine": {str(machine): float(s) for machine, s in shares.items()},
    }
