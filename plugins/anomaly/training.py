"""Train a model version, register it, and put it in force."""

import getpass
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from anomaly.detector import Detector
from anomaly.drift import Reference
from anomaly.errors import ArtefactError, FolderTakenError, TrainingError
from anomaly.evaluation.card import model_card, pictures
from anomaly.evaluation.promotion import SHORTEST, Compared, Judgement, JudgingDays, compare
from anomaly.evaluation.trials import CONTEXT
from anomaly.forest import PrototypeDetector, fit_forest
from anomaly.incidents import NOT_NORMAL, Label
from anomaly.model import Model
from anomaly.postgres.database import TRAINER, Database
from anomaly.postgres.incidents import labels_during
from anomaly.postgres.machines import trainable_machines
from anomaly.postgres.readings import WindowReader
from anomaly.postgres.versions import (
    Draft,
    begin_draft,
    champion,
    end_draft,
    hold_draft,
    orphaned_drafts,
    promote,
    register_version,
    retire_versions,
)
from anomaly.quality import in_hindsight, judge, profile
from anomaly.registry import CARD, Artefact, Registry, artefact_files, library_versions
from anomaly.schema import Quality
from anomaly.settings import DetectorName, Settings
from anomaly.signal_detector import SignalDetector
from anomaly.windows import Window

PARAMETERS = (
    "detector", "alert_budget",
    "forest_trees", "forest_max_samples", "forest_contamination", "forest_one_hot_machines",
    "random_seed", "reading_kind", "interval_minutes", "max_gap_days", "stuck_margin_hours",
    "stuck_flat_share", "meter_resolution_kwh",
)  # fmt: skip
"""Settings that are kept with a version, so that it can be trained again."""


@dataclass(frozen=True)
class TrainingReport:
    """What a training made.

    Attributes
    ----------
    effective_from : datetime or None
        First reading time the version judges; None where it is not in force, or
        judges all time (see `promoted`).
    judgement : Judgement or None
        What the judge said; None where it was not asked.
    card : str
        Where the model card lies; empty without a judgement.
    """

    version: int
    window: Window
    readings: int
    machines: int
    promoted: bool
    effective_from: datetime | None
    metrics: dict[str, Any]
    judgement: Judgement | None = None
    card: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        judgement = self.judgement and self.judgement.as_dict()
        return vars(self) | {"window": vars(self.window), "judgement": judgement}


@dataclass(frozen=True)
class _Trained:
    """A model, the readings it was trained on, and how it was judged."""

    model: Model
    estimator: object
    window: Window
    sound: pd.DataFrame
    metrics: dict[str, Any]
    labels_through: int
    compared: Compared | None = None


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
        first, newest = self._extent(due)
        end = newest - timedelta(days=self.settings.judging_days)
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
        by = by or current_user()
        trained = self._train(window)
        version, _ = self._register(trained, by)
        effective_from = None
        if put_in_force:
            effective_from = self.promote(version, by=by, reason=reason or "trained")
        return _report(version, trained, put_in_force, effective_from)

    def challenge(
        self, window: Window, *, by: str = "", due: datetime | None = None
    ) -> TrainingReport:
        """Train on `window`, judge against the version in force, register whatever the verdict.

        Nothing is put in force. The judging days are those after both training windows,
        as many as the settings say.

        Parameters
        ----------
        due : datetime, optional
            Readings from here on do not count yet.

        Raises
        ------
        TrainingError
            As `train`.
        """
        by = by or current_user()
        trained = self._train(window)
        trained = replace(trained, compared=self._compare(trained, due))
        version, card = self._register(trained, by)
        return _report(version, trained, card=card)

    def promote(self, version: int, *, by: str, reason: str) -> datetime | None:
        """Put a version in force from the next interval that is not yet scored."""
        with self.database.transaction(TRAINER) as transaction:
            return promote(transaction, version, self.settings.interval, by=by, reason=reason)

    def sweep(self) -> list[str]:
        """Remove what killed trainings and retired versions left.

        Folders being written stay, and those of another database. What cannot be removed
        now waits on record.

        Returns
        -------
        list of str
            The folders removed.
        """
        removed = []
        with self.database.transaction(TRAINER) as transaction:
            for draft in orphaned_drafts(transaction):
                with suppress(ArtefactError):
                    if self.registry.sweep(draft.folder, draft.token, draft.sha256):
                        removed.append(draft.folder)
                    end_draft(transaction, draft)
        return removed

    def _train(self, window: Window, labels_through: int | None = None) -> _Trained:
        self._require_history(window.start, window.end)
        sound, labels_through = self._sound_readings(window, labels_through)
        model, estimator = self._fit(sound)
        metrics = _metrics(model, sound)
        return _Trained(model, estimator, window, sound, metrics, labels_through)

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
            machines = trainable_machines(transaction)
        known = machines.set_index("machine_id")[["time_zone", "alert_budget"]]
        often_flat = profiles["flat_share"] > self.settings.stuck_flat_share
        table = known.reindex(profiles.index).assign(often_flat=often_flat)
        detector = SignalDetector.fit(sound, table, self.settings)
        return detector, detector

    def _sound_readings(
        self, window: Window, labels_through: int | None
    ) -> tuple[pd.DataFrame, int]:
        """The window's readings without meter faults, and without what people said was none.

        False alarms stay: that is how a new normal is learnt. The newest label that
        counted is given too.
        """
        shape = self.reader.prepare(self.database, window, TRAINER)
        with self.database.transaction(TRAINER, read_only=True) as transaction:
            machines = trainable_machines(transaction)["machine_id"].tolist()
            read = self.reader.read(transaction, shape, window)
            if labels_through is None:
                labels_through = int(transaction.value("newest_label"))
            labels = labels_during(transaction, machines, window.start, window.end, labels_through)
        measured = read.frame
        if measured.empty:
            raise TrainingError(
                f"{self.settings.source_name} has no readings in {window}: choose another range"
            )
        self._require_history(
            measured["utc_timestamp"].min(),
            measured["utc_timestamp"].max() + self.settings.interval,
        )
        profiles = profile(measured)
        seen = in_hindsight(read.context, profiles, self.settings)
        faulty = judge(seen, profiles, self.settings)[read.inside] >= Quality.STUCK
        measured = seen[read.inside].reset_index(drop=True)
        left_out = faulty | _labelled(measured, labels, self.settings.interval)
        return measured[~left_out].reset_index(drop=True), labels_through

    def _require_history(self, start: datetime, end: datetime) -> None:
        if missing := self.settings.missing_history((end - start) / timedelta(days=1)):
            raise TrainingError(missing)

    def arrays(
        self, window: Window, labels_through: int | None = None
    ) -> tuple[dict[str, npt.NDArray[Any]], int]:
        """What training on `window` gives for scoring, and on how many readings; keeps nothing.

        Labels written after `labels_through` do not count.
        """
        trained = self._train(window, labels_through)
        return trained.model.arrays(), len(trained.sound)

    # The judgement ------------------------------------------------------

    def _compare(self, trained: _Trained, due: datetime | None) -> Compared:
        """Judge a model beside the champion; what cannot be judged is refused, with the reason."""
        with self.database.transaction(TRAINER, read_only=True) as transaction:
            found = champion(transaction)
            zones = trainable_machines(transaction)["time_zone"]
        _, newest = self._extent(due)
        start = max(trained.window.end, found.trained_to if found else trained.window.end)
        end = min(start + timedelta(days=self.settings.judging_days), newest)
        version = found.version if found else None
        if end - start < SHORTEST:
            return _unjudged(version, _too_few_days(start, end))
        try:
            model = self.registry.load(found.artefact) if found else None
        except ArtefactError as error:
            return _unjudged(version, f"the champion cannot be opened to compare with: {error}")
        days = self._judging_days(Window(start, end))
        if not days.wanted.any():
            return _unjudged(version, f"there are no readings in {days.window} to judge on")
        zone = str(zones.mode().iloc[0])
        return compare(trained.model, model, version, trained.sound, days, self.settings, zone)

    def _judging_days(self, window: Window) -> JudgingDays:
        wider = window.starting_earlier(CONTEXT)
        shape = self.reader.prepare(self.database, wider, TRAINER)
        with self.database.transaction(TRAINER, read_only=True) as transaction:
            return JudgingDays(self.reader.read(transaction, shape, wider).frame, window)

    def _extent(self, due: datetime | None) -> tuple[datetime, datetime]:
        """The first reading's time, and the end of the newest's interval before `due`."""
        with self.database.transaction(TRAINER, read_only=True) as transaction:
            shape = self.reader.source.describe(transaction)
            extent = self.reader.source.extent(transaction, shape)
            last = extent and extent[1]
            if due is not None:
                last = self.reader.source.previous_reading(transaction, shape, due)
        if extent is None or last is None:
            raise TrainingError(
                f"{self.settings.source_name} is empty: load readings first, for example with"
                " `anomaly ingest FILE.csv`"
            )
        newest = last + self.settings.interval
        return extent[0], min(newest, due or newest)

    # The registry -------------------------------------------------------

    def _register(self, trained: _Trained, by: str) -> tuple[int, str]:
        """Write the files, then the row that makes them a version; where the card lies."""
        details = self._details(trained, by)
        shown = pictures(trained.compared, trained.model.detector.name) if trained.compared else {}
        while True:
            with self.database.transaction(TRAINER) as transaction:
                draft = begin_draft(transaction, self.registry.highest_version(), by)
            try:
                artefact = self._write(draft, trained, details, shown)
                break
            except FolderTakenError:  # by another database, or the draft was swept: draw again
                continue
        self._retire(by)
        self.sweep()
        card = f"{self.registry.place(artefact)}/{CARD}" if CARD in artefact.sha256 else ""
        return draft.version, card

    def _write(
        self, draft: Draft, trained: _Trained, details: dict[str, Any], shown: dict[str, bytes]
    ) -> Artefact:
        with self.database.transaction(TRAINER) as transaction:
            hold_draft(transaction, draft)
            files = self._files(draft, trained, details) | shown
            artefact = self.registry.write(draft.folder, files, draft.token)
            register_version(transaction, draft.version, artefact, details)
        return artefact

    def _retire(self, by: str) -> None:
        if self.settings.keep_versions:
            with self.database.transaction(TRAINER) as transaction:
                retire_versions(transaction, self.settings.keep_versions, by)

    def _files(self, draft: Draft, trained: _Trained, details: dict[str, Any]) -> dict[str, bytes]:
        manifest = {"version": draft.version, "token": draft.token} | _plain(details)
        files = artefact_files(trained.model, trained.estimator, manifest)
        if trained.compared:
            known = details | {"machines": len(trained.model.profiles)}
            files[CARD] = model_card(draft.version, known, trained.compared.judgement).encode()
        return files

    def _details(self, trained: _Trained, by: str) -> dict[str, Any]:
        """What the database and the manifest say of a version."""
        judgement = trained.compared.judgement if trained.compared else None
        return {
            "detector": trained.model.detector.name,
            "trained_from": trained.window.start,
            "trained_to": trained.window.end,
            "readings": len(trained.sound),
            "parameters": self.settings.model_dump(mode="json", include=set(PARAMETERS))
            | {"labels_through": trained.labels_through},
            "metrics": trained.metrics,
            "judgement": judgement and judgement.as_dict(),
            "status": "refused" if judgement and judgement.reasons else "registered",
            "library_versions": library_versions(),
            "registered_by": by,
        }


def current_user() -> str:
    """Who runs this, for the record; in a container the account may have no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def _labelled(
    measured: pd.DataFrame, labels: Iterable[Label], interval: timedelta
) -> npt.NDArray[np.bool_]:
    """Readings whose last label says real fault, maintenance or fault of the meter."""
    machine, stamps = measured["machine_id"], measured["utc_timestamp"]
    found = np.zeros(len(measured), dtype=bool)
    for label in labels:
        mine = machine == label.machine_id
        if label.start is not None:
            mine &= stamps + interval > label.start
        if label.end is not None:
            mine &= stamps < label.end
        found[mine.to_numpy()] = label.label in NOT_NORMAL
    return found


def _report(
    version: int,
    trained: _Trained,
    promoted: bool = False,
    effective_from: datetime | None = None,
    card: str = "",
) -> TrainingReport:
    return TrainingReport(
        version,
        trained.window,
        len(trained.sound),
        len(trained.model.profiles),
        promoted,
        effective_from,
        trained.metrics,
        trained.compared.judgement if trained.compared else None,
        card,
    )


def _unjudged(champion_version: int | None, reason: str) -> Compared:
    """A judgement without measures: refused, unless there is nothing to stay in its place."""
    reasons = (reason,) if champion_version is not None else ()
    return Compared(Judgement(champion_version, reasons=reasons), {})


def _too_few_days(start: datetime, end: datetime) -> str:
    days = max(end - start, timedelta(0)) / timedelta(days=1)
    return (
        f"{days:.1f} days of readings are there that neither version was trained on (from"
        f" {start:%Y-%m-%d %H:%M} on), at least one is needed: wait, or train on an earlier window"
    )


def _plain(details: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in details.items()
    }


def _metrics(model: Model, sound: pd.DataFrame) -> dict[str, Any]:
    detector = model.detector
    anomaly = detector.score(sound, np.ones(len(sound), dtype=bool)).anomaly
    shares = pd.Series(anomaly).groupby(sound["machine_id"].to_numpy()).mean()
    found = {
        "threshold": detector.threshold,
        "anomaly_share": float(anomaly.mean()),
        "anomaly_share_by_machine": {str(machine): float(s) for machine, s in shares.items()},
    }
    if isinstance(detector, SignalDetector):
        by_machine = detector.realised_rate[:-1]
        rates = zip(detector.usual.machine_ids.tolist(), by_machine, strict=True)
        found["alerts_a_week_by_machine"] = {str(n): round(float(rate), 3) for n, rate in rates}
    return found
