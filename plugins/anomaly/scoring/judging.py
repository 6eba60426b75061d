"""Judge measured windows by the model versions that are in force at each reading's own time."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
import numpy.typing as npt
import pandas as pd

from anomaly.database.connection import Transaction
from anomaly.database.meter_table import SourceShape
from anomaly.database.model_in_force import InForce, versions_in_force
from anomaly.database.scoring_runs import scored_to
from anomaly.errors import ArtefactError, NoModelError, SettingsError
from anomaly.models.artefacts import Registry
from anomaly.models.model import Model
from anomaly.models.verdicts import verdicts_on, with_final_quality
from anomaly.readings.contradictions import REACH
from anomaly.scoring.look_behind import LookBehind
from anomaly.scoring.window_reader import MeasuredWindow, WindowReader
from anomaly.settings import MeterSettings, ModelSettings, ReadingKind
from anomaly.windows import Window


@dataclass(frozen=True)
class Judges:
    """The versions in force in a window, opened.

    Attributes
    ----------
    parts : tuple of InForce
        The part of the version map, in order of time.
    recorded : tuple of InForce
        The same as it is on record, without a version that is only assumed.
    models : mapping
        The models by their version.
    behind : LookBehind
        How far before the window they look.
    """

    parts: tuple[InForce, ...]
    recorded: tuple[InForce, ...]
    models: Mapping[int, Model]
    behind: LookBehind


class WindowJudge:
    """Opens the models in force, and judges readings by them.

    Parameters
    ----------
    reader : WindowReader
        Reads the windows that are judged again (`judge_again`).
    assumed : InForce, optional
        Judge as if this version were in force in its window, whatever the version map says: to
        see what would change.
    """

    def __init__(
        self,
        reader: WindowReader,
        model_settings: ModelSettings,
        meter: MeterSettings,
        assumed: InForce | None = None,
    ) -> None:
        self.assumed = assumed
        self.reader = reader
        self.meter = meter
        self.registry = Registry(model_settings.models_url)
        self._behind: dict[tuple[int, ...], LookBehind] = {}

    def judges_of(self, transaction: Transaction, window: Window) -> Judges:
        """Open the versions in force in a window.

        Verdicts of the day before may change with readings in the window, so it is looked as
        far behind as the models that judge that day do, too.

        Raises
        ------
        NoModelError
            When no version is in force for a part of the window.
        ArtefactError
            When a model's files are missing or changed.
        SettingsError
            When a model was trained on another kind of readings.
        """
        return self.judges_by(lambda asked: versions_in_force(transaction, asked), window)

    def judges_by(
        self, in_force: Callable[[Window], tuple[InForce, ...]], window: Window
    ) -> Judges:
        """The same by a version map that says which versions are in force in a window.

        Raises
        ------
        NoModelError, ArtefactError, SettingsError
            As `judges_of`.
        """
        recorded = in_force(window)
        parts = self._assuming(recorded)
        models = self._open(parts)
        before: dict[int, Model] = {}
        with suppress(NoModelError, ArtefactError):  # then the day before cannot be judged
            earlier = in_force(window.starting_earlier(REACH))
            before = self._open(self._assuming(earlier))
        return Judges(parts, recorded, models, self._look_behind(before | models))

    def verdicts(self, measured: MeasuredWindow, judges: Judges) -> pd.DataFrame:
        """Verdicts on the window's readings, sorted by machine and time (see `verdicts_on`).

        Each reading is judged by the version in force at its own timestamp, which stands in
        ``model_version``.
        """
        parts = []
        stamps = measured.around["utc_timestamp"]
        for part in judges.parts:
            during = (stamps >= part.window.start) & (stamps < part.window.end)
            mine = measured.inside & during.to_numpy()
            model = judges.models[part.version]
            verdicts = verdicts_on(measured.around, mine, model, self.meter)
            parts.append(verdicts.assign(model_version=part.version))
        if len(parts) == 1:
            return parts[0]
        return pd.concat(parts, ignore_index=True).sort_values(
            ["machine_id", "utc_timestamp"], ignore_index=True
        )

    def readings_as_judged(self, measured: MeasuredWindow, judges: Judges) -> pd.DataFrame:
        """The window's readings with the quality and power that a verdict states, unscored.

        ``version`` is the version that judges each.
        """
        numbers = version_at(measured.around, judges.parts)
        parts = []
        for version, model in judges.models.items():
            mine = measured.inside & (numbers == version)
            if mine.any():
                seen = with_final_quality(measured.around, model, self.meter)[mine]
                parts.append(seen.assign(version=version))
        return pd.concat(parts) if parts else measured.frame.assign(version=0)

    def judge_again(
        self,
        transaction: Transaction,
        shape: SourceShape,
        window: Window,
        until: Mapping[int, datetime],
        published_to: datetime,
    ) -> pd.DataFrame:
        """Read and judge a window for some machines, each up to a moment, in one transaction.

        Parameters
        ----------
        published_to : datetime
            End of the window that is being published: its readings may contradict these.

        Raises
        ------
        NoModelError, ArtefactError, SettingsError
            As `judges_of`.
        """
        judges = self.judges_of(transaction, window)
        measured = self.reader.read(
            transaction,
            shape,
            window,
            list(until),
            judges.behind,
            judged_to=max(scored_to(transaction) or published_to, published_to),
        )
        verdicts = self.verdicts(measured, judges)
        reached = verdicts["utc_timestamp"] <= verdicts["machine_id"].map(until)
        kept: pd.DataFrame = verdicts[reached]
        return kept

    def _look_behind(self, models: Mapping[int, Model]) -> LookBehind:
        versions = tuple(sorted(models))
        behind = self._behind.get(versions) or LookBehind.of(models.values(), self.meter)
        self._behind = {versions: behind}
        return behind

    def _assuming(self, parts: tuple[InForce, ...]) -> tuple[InForce, ...]:
        """Parts of the version map, with the assumed version where it would judge."""
        if self.assumed is None:
            return parts
        found = []
        for part in parts:
            inside = part.window.within(self.assumed.window)
            if inside is None:
                found.append(part)
                continue
            if part.window.start < inside.start:
                found.append(replace(part, window=Window(part.window.start, inside.start)))
            found.append(replace(self.assumed, window=inside))
            if inside.end < part.window.end:
                found.append(replace(part, window=Window(inside.end, part.window.end)))
        return tuple(found)

    def _open(self, parts: Iterable[InForce]) -> dict[int, Model]:
        models = {part.version: self.registry.load(part.artefact) for part in parts}
        for version, model in models.items():
            refuse_other_readings(version, model, self.meter)
        return models


def version_at(readings: pd.DataFrame, parts: tuple[InForce, ...]) -> npt.NDArray[np.int64]:
    """The version in force at each reading's time."""
    starts = pd.Series([part.window.start for part in parts])
    place = np.searchsorted(
        starts.astype("datetime64[us, UTC]"), readings["utc_timestamp"], side="right"
    )
    versions: npt.NDArray[np.int64] = np.array([part.version for part in parts])[place - 1]
    return versions


def refuse_other_readings(version: int, model: Model, meter: MeterSettings) -> None:
    """Refuse settings that say something else of the readings than a version was trained on.

    Raises
    ------
    SettingsError
        Naming both.
    """
    kind = ReadingKind(model.reading_kind)
    trained = (kind.value, model.reading_unit or kind.own_unit, model.interval_minutes)
    asked = (meter.reading_kind.value, meter.unit, meter.interval_minutes)
    if trained != asked:
        raise SettingsError(
            f"model version {version} was trained on {_described(*trained)}, the settings say"
            f" {_described(*asked)}: set ANOMALY_READING_KIND, ANOMALY_READING_UNIT and"
            " ANOMALY_INTERVAL_MINUTES to what the meter table holds, or train a new version"
        )


def _described(kind: str, unit: str, minutes: int) -> str:
    return f"{kind} in {unit} every {minutes} minutes"
