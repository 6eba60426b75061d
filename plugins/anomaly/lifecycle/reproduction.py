"""Train a version again from what is on record, and compare every array."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from anomaly.database.connection import TRAINER, Database
from anomaly.lifecycle.promotion import artefact_of, require_version
from anomaly.lifecycle.training import Trainer
from anomaly.models.artefacts import Registry, library_versions
from anomaly.settings import Settings
from anomaly.windows import Window


@dataclass(frozen=True)
class Reproduced:
    """A version trained again, compared with the one on record.

    Attributes
    ----------
    differing : list of str
        Arrays that are not the same, bit for bit; empty: the version was reproduced.
    libraries : mapping
        Libraries of another version than then, as ``then, now``.
    """

    version: int
    readings: int
    readings_then: int
    differing: Sequence[str]
    libraries: Mapping[str, tuple[str, str]]

    @property
    def same(self) -> bool:
        """Whether every array is the same."""
        return not self.differing


def _as_then(settings: Settings, parameters: Mapping[str, Any]) -> Settings:
    """The settings a version was trained with, where there still are such."""
    known = {name: value for name, value in parameters.items() if name in settings.values()}
    return settings.changed(**known)


def _caution_of(arrays: Mapping[str, Any]) -> dict[int, float]:
    """What the alert budgets were divided by, by machine; empty for another detector."""
    if "detector/caution" not in arrays:
        return {}
    ids, caution = (arrays[f"detector/{name}"].tolist() for name in ("machine_ids", "caution"))
    return dict(zip(ids, caution, strict=False))  # the fleet's has no machine


def reproduce(database: Database, settings: Settings, version: int) -> Reproduced:
    """Train a version again from what is on record, and compare every array.

    Labels of then are used, but time zones and alert budgets of machines as they are now.

    Raises
    ------
    PromotionError
        When there is no such version.
    TrainingError
        When its readings are gone.
    """
    with database.transaction(TRAINER, read_only=True) as transaction:
        row = require_version(transaction, version)
    # By what scoring makes of them: an artefact may be older than an array that it lacks.
    registered = Registry(settings.models.models_url).load(artefact_of(row)).arrays()
    window = Window(row["trained_from"], row["trained_to"])
    through = row["parameters"].get("labels_through")
    trainer = Trainer(database, _as_then(settings, row["parameters"]))
    trained = trainer.train(window, through, _caution_of(registered))
    arrays = trained.model.arrays()
    differing = [
        name
        for name in sorted(registered.keys() | arrays.keys())
        if name not in arrays
        or name not in registered
        or registered[name].tobytes() != arrays[name].tobytes()
    ]
    now = library_versions()
    libraries = {
        name: (then, now.get(name, "not installed"))
        for name, then in row["library_versions"].items()
        if now.get(name) != then
    }
    return Reproduced(version, len(trained.sound), row["readings"], differing, libraries)
