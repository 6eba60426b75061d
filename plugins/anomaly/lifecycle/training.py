"""Train a model version, register it, and put it in force."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from anomaly.current_user import current_user
from anomaly.database.connection import TRAINER, Database
from anomaly.database.incidents import alert_rates
from anomaly.database.labels import newest_label
from anomaly.database.machines import trainable_machines
from anomaly.database.model_in_force import champion, champion_since
from anomaly.database.model_versions import (
    Draft,
    begin_draft,
    end_draft,
    hold_draft,
    orphaned_drafts,
    refused_in_a_row,
    register_version,
    retire_versions,
)
from anomaly.database.scoring_runs import scored_to
from anomaly.database.sites import replace_holidays
from anomaly.detectors.base import Detector
from anomaly.detectors.prototype import PrototypeDetector, fit_forest
from anomaly.detectors.signals.calibration import next_caution
from anomaly.detectors.signals.detector import SignalDetector
from anomaly.detectors.signals.holiday_calendars import public_holidays
from anomaly.detectors.signals.training import train_signals
from anomaly.errors import ArtefactError, FolderTakenError, TrainingError
from anomaly.evaluation.train_test_weeks import JUDGING_LOOK_BACK, WEEK
from anomaly.incidents.labels import NOT_NORMAL, Label
from anomaly.incidents.refresh import labels_during
from anomaly.lifecycle.gate import (
    Compared,
    InForce,
    Judgement,
    JudgingDays,
    judge_on_new_days,
    unjudged,
)
from anomaly.lifecycle.model_card import model_card, pictures
from anomaly.models.artefacts import CARD, Artefact, Registry, artefact_files, library_versions
from anomaly.models.drift import Reference
from anomaly.models.model import Model
from anomaly.readings.meter_faults import final_quality, in_hindsight, profile_machines
from anomaly.readings.quality import Quality
from anomaly.scoring.window_reader import WindowReader
from anomaly.settings import DetectorName, MeterSettings, Settings
from anomaly.windows import Window

PARAMETERS = (
    "detector", "alert_budget", "least_deviation_share", "least_deviation_kw", "holidays",
    "forest_trees", "forest_max_samples", "forest_contamination", "forest_one_hot_machines",
    "random_seed", "reading_kind", "reading_unit", "interval_minutes", "max_gap_days",
    "stuck_margin_hours", "stuck_flat_share", "meter_resolution_kwh",
)  # fmt: skip
"""Settings that are kept with a version, so that it can be trained again."""


RATED = timedelta(weeks=4)
"""Alerts that began longer ago do not correct the caution. Chosen."""


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
    refused_in_a_row : int
        Newest versions that the gate refused, this one included.
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
    refused_in_a_row: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        judgement = self.judgement and self.judgement.as_dict()
        return vars(self) | {"window": vars(self.window), "judgement": judgement}


@dataclass(frozen=True)
class TrainedVersion:
    """A trained model that is not registered yet.

    Attributes
    ----------
    estimator : object
        What scikit-learn trained.
    sound : DataFrame
        The readings it was trained on, measured.
    labels_through : int
        The newest label that counted.
    compared : Compared or None
        How it was judged; None: it was not.
    """

    model: Model
    estimator: object
    window: Window
    sound: pd.DataFrame
    labels_through: int
    compared: Compared | None = None

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """How often the model alarms on the readings that it was trained on."""
        return _training_metrics(self.model, self.sound)


class Trainer:
    """Trains model versions of one deployment."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self.database = database
        self.settings = settings
        self.registry = Registry(settings.models.models_url)
        self.reader = WindowReader(settings.meter_table, settings.meter)

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
        end = newest - timedelta(days=self.settings.training.judging_days)
        start = max(first, end - timedelta(weeks=self.settings.training.training_weeks))
        self._require_history(start, end)
        return Window(start, end)

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
        trained = self.train(window)
        return self.register(replace(trained, compared=self._compare(trained, due)), by=by)

    def train(
        self,
        window: Window,
        labels_through: int | None = None,
        caution: Mapping[int, float] | None = None,
    ) -> TrainedVersion:
        """Train on `window`; nothing is registered or written.

        Parameters
        ----------
        labels_through : int, optional
            Labels written later do not count; default: all do.
        caution : mapping of int to float, optional
            What each machine's alert budget is divided by; default: as `learnt_caution` says.

        Raises
        ------
        TrainingError
            When the window holds fewer days of readings than a training needs.
        """
        self._require_history(window.start, window.end)
        sound, labels_through = self._sound_readings(window, labels_through)
        if caution is None:
            caution = self.learnt_caution()
        model, estimator = fit_model(sound, self._machines(), caution, self.settings)
        return TrainedVersion(model, estimator, window, sound, labels_through)

    def learnt_caution(self) -> dict[int, float]:
        """What each machine's alert budget is divided by, from the alerts really raised.

        The version in force knows its own; the alerts that have begun since it judges, at most
        `RATED` ago, correct it. So none is counted twice, though its training ended days earlier.
        Those that people called real do not count. Empty where no such version is in force.
        """
        with self.database.transaction(TRAINER, read_only=True) as transaction:
            found = champion(transaction)
            if found is None:
                return {}
            until = scored_to(transaction) or found.trained_to
            since = champion_since(transaction, [found.version]) or found.trained_to
            start = max(found.trained_to, since, until - RATED)
            rates = alert_rates(transaction, start, until) if start < until else {}
        try:
            model = self.registry.load(found.artefact)
        except ArtefactError:  # the judgement says so; without it the caution starts anew
            return {}
        counted = {machine: self._counted(dict(rate)) for machine, rate in rates.items()}
        return corrected_caution(model, counted)

    def _counted(self, rate: Mapping[str, Any]) -> tuple[float, float]:
        """Alerts of a machine that were raised, and that its budget bore in that time."""
        if not rate["first_at"]:
            return 0.0, 0.0
        weeks = (rate["last_at"] - rate["first_at"] + self.settings.meter.interval) / WEEK
        budget = rate["alert_budget"] or self.settings.training.alert_budget
        return rate["alerts"] - rate["real_alerts"], budget * weeks

    def register(self, trained: TrainedVersion, *, by: str = "") -> TrainingReport:
        """Write the files, then the row that makes them a version, judged or not."""
        by = by or current_user()
        holidays = self._holidays(trained.window.end.year)
        version, card = self._write_version(trained, by)
        with self.database.transaction(TRAINER) as transaction:
            replace_holidays(transaction, holidays)
        with self.database.transaction(TRAINER, read_only=True) as transaction:
            refused, _ = refused_in_a_row(transaction)
        return TrainingReport(
            version,
            trained.window,
            len(trained.sound),
            len(trained.model.profiles),
            promoted=False,
            effective_from=None,
            metrics=trained.metrics,
            judgement=trained.compared.judgement if trained.compared else None,
            card=card,
            refused_in_a_row=refused,
        )

    def sweep(self) -> list[str]:
        """Remove what killed trainings and retired versions left.

        Folders being written stay, and those of another database, even if this one is its copy.
        What is not removed now waits on record.

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

    def _machines(self) -> pd.DataFrame:
        """What is on record of each machine, indexed by ``machine_id``."""
        with self.database.transaction(TRAINER, read_only=True) as transaction:
            return trainable_machines(transaction).set_index("machine_id")

    def _holidays(self, year: int) -> dict[str, Mapping[date, str]]:
        """Holidays of every calendar in use, ten years back and five on, for the views of bi."""
        own = set(self._machines()["holidays"].dropna())
        calendars = {name: name for name in own} | {"": self.settings.training.holidays}
        return {
            key: public_holidays(calendar, year - 10, year + 5)
            for key, calendar in calendars.items()
            if calendar
        }

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
                labels_through = newest_label(transaction)
            labels = labels_during(transaction, machines, window.start, window.end, labels_through)
        measured = read.frame
        if measured.empty:
            raise TrainingError(
                f"{self.settings.meter_table.source_name} has no readings in {window}: choose"
                " another range"
            )
        self._require_history(
            measured["utc_timestamp"].min(),
            measured["utc_timestamp"].max() + self.settings.meter.interval,
        )
        measured, sound = sound_readings(read.around, read.inside, self.settings.meter)
        kept = sound & ~_labelled(measured, labels, self.settings.meter.interval)
        return measured[kept].reset_index(drop=True), labels_through

    def _require_history(self, start: datetime, end: datetime) -> None:
        if missing := self.settings.training.missing_history((end - start) / timedelta(days=1)):
            raise TrainingError(missing)

    # The judgement ------------------------------------------------------

    def _compare(self, trained: TrainedVersion, due: datetime | None) -> Compared:
        """Judge a model beside the champion; what cannot be judged is refused, with the reason."""
        with self.database.transaction(TRAINER, read_only=True) as transaction:
            found = champion(transaction)
            zones = trainable_machines(transaction)["time_zone"]
        _, newest = self._extent(due)
        in_force = None
        try:
            if found:
                model = self.registry.load(found.artefact)
                in_force = InForce(found.version, model, found.trained_to)
        except ArtefactError as error:
            assert found is not None  # nothing else is opened
            reason = f"the champion cannot be opened to compare with: {error}"
            return unjudged(found.version, found.trained_to, newest, reason)
        return judge_on_new_days(
            trained.model,
            trained.sound,
            trained.window.end,
            in_force,
            newest,
            self._judging_days,
            self.settings,
            str(zones.mode().iloc[0]),
        )

    def _judging_days(self, window: Window) -> JudgingDays:
        wider = window.starting_earlier(JUDGING_LOOK_BACK)
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
                f"{self.settings.meter_table.source_name} is empty: load readings first, for"
                " example with `anomaly ingest FILE.csv`"
            )
        newest = last + self.settings.meter.interval
        return extent[0], min(newest, due or newest)

    # The registry -------------------------------------------------------

    def _write_version(self, trained: TrainedVersion, by: str) -> tuple[int, str]:
        """Write the files and register them; the version, and where its card lies."""
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
        self,
        draft: Draft,
        trained: TrainedVersion,
        details: dict[str, Any],
        shown: dict[str, bytes],
    ) -> Artefact:
        with self.database.transaction(TRAINER) as transaction:
            hold_draft(transaction, draft)
            files = self._files(draft, trained, details) | shown
            artefact = self.registry.write(draft.folder, files, draft.token)
            register_version(transaction, draft.version, artefact, details)
        return artefact

    def _retire(self, by: str) -> None:
        if self.settings.models.keep_versions:
            with self.database.transaction(TRAINER) as transaction:
                retire_versions(transaction, self.settings.models.keep_versions, by)

    def _files(
        self, draft: Draft, trained: TrainedVersion, details: dict[str, Any]
    ) -> dict[str, bytes]:
        manifest = {"version": draft.version, "token": draft.token} | _plain(details)
        files = artefact_files(trained.model, trained.estimator, manifest)
        if trained.compared:
            known = details | {"machines": len(trained.model.profiles)}
            files[CARD] = model_card(draft.version, known, trained.compared.judgement).encode()
        return files

    def _details(self, trained: TrainedVersion, by: str) -> dict[str, Any]:
        """What the database and the manifest say of a version."""
        judgement = trained.compared.judgement if trained.compared else None
        return {
            "detector": trained.model.detector.name,
            "trained_from": trained.window.start,
            "trained_to": trained.window.end,
            "readings": len(trained.sound),
            "parameters": kept_parameters(self.settings)
            | {"labels_through": trained.labels_through},
            "metrics": trained.metrics,
            "judgement": judgement and judgement.as_dict(),
            "status": "refused" if judgement and judgement.reasons else "registered",
            "library_versions": library_versions(),
            "registered_by": by,
        }


def corrected_caution(model: Model, counted: Mapping[int, tuple[float, float]]) -> dict[int, float]:
    """What each machine's alert budget is divided by next, after the alerts under a model.

    Parameters
    ----------
    counted : mapping of int to (float, float)
        By machine: alerts raised since the model judges, and those that the budget bore; a
        machine that is missing keeps its caution.

    Returns
    -------
    dict of int to float
        Empty for another detector than `signals`.
    """
    detector = model.detector
    if not isinstance(detector, SignalDetector):
        return {}
    ids = detector.usual.machine_ids.tolist()
    counts = np.array([counted.get(machine, (0.0, 0.0)) for machine in ids]).reshape(-1, 2)
    caution = next_caution(detector.caution[: len(ids)], counts[:, 0], counts[:, 1])
    return dict(zip(ids, caution.tolist(), strict=True))


def sound_readings(
    around: pd.DataFrame, inside: npt.NDArray[np.bool_], settings: MeterSettings
) -> tuple[pd.DataFrame, npt.NDArray[np.bool_]]:
    """The readings of a training window as they are seen afterwards, and which are no meter fault.

    Parameters
    ----------
    around : DataFrame
        Measured readings of the window and those near it, sorted by machine and time.
    inside : array of bool
        Which of them lie in the window.
    """
    profiles = profile_machines(around[inside].reset_index(drop=True))
    seen = in_hindsight(around, profiles, settings)
    sound = final_quality(seen, profiles, settings)[inside] < Quality.STUCK
    return seen[inside].reset_index(drop=True), sound


def fit_model(
    sound: pd.DataFrame,
    machines: pd.DataFrame,
    caution: Mapping[int, float],
    settings: Settings,
) -> tuple[Model, object]:
    """The model, and what scikit-learn trained for it.

    Parameters
    ----------
    sound : DataFrame
        Measured readings without meter faults, sorted by machine and time.
    machines : DataFrame
        ``time_zone``, ``alert_budget`` and ``holidays``, indexed by ``machine_id``.
    caution : mapping of int to float
        What each machine's alert budget is divided by; a missing one begins anew.
    """
    profiles = profile_machines(sound)
    detector, estimator = _fit_detector(sound, profiles, machines, caution, settings)
    model = Model(
        detector,
        profiles,
        settings.meter.reading_kind.value,
        settings.meter.interval_minutes,
        Reference.of(sound),
        settings.meter.reading_unit,
    )
    return model, estimator


def _fit_detector(
    sound: pd.DataFrame,
    profiles: pd.DataFrame,
    machines: pd.DataFrame,
    caution: Mapping[int, float],
    settings: Settings,
) -> tuple[Detector, object]:
    if settings.training.detector is DetectorName.PROTOTYPE:
        pipeline = fit_forest(sound, settings.training)
        return PrototypeDetector.compile(pipeline, settings.meter), pipeline
    known = machines[["time_zone", "alert_budget", "holidays"]].reindex(profiles.index)
    often_flat = profiles["flat_share"] > settings.meter.stuck_flat_share
    table = known.assign(often_flat=often_flat, caution=profiles.index.map(caution))
    detector = train_signals(sound, table, settings.meter, settings.training).detector
    return detector, detector


def kept_parameters(settings: Settings) -> dict[str, Any]:
    """The settings that are kept with a version, as plain JSON values."""
    values = settings.values()
    return {name: values[name] for name in PARAMETERS}


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


def _plain(details: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in details.items()
    }


def _training_metrics(model: Model, sound: pd.DataFrame) -> dict[str, Any]:
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
