"""Model artefacts: arrays to score with, the scikit-learn object beside them, and their hashes.

Scoring opens ``scoring.npz`` (only arrays) and ``manifest.json``, and only after the bytes of
every file have matched the database. ``model.joblib`` is a pickle; it is opened only on request.
"""

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version as library_version
from io import BytesIO
from typing import Any
from zipfile import ZIP_DEFLATED, BadZipFile, ZipFile, ZipInfo

import numpy as np
import numpy.typing as npt

from anomaly.detectors.base import Detector
from anomaly.detectors.prototype import PrototypeDetector
from anomaly.detectors.signals.detector import SignalDetector
from anomaly.errors import ArtefactError
from anomaly.models.artefact_store import MANIFEST, Store, open_store
from anomaly.models.model import Model

FORMAT = 3
"""Version of the files. A change that older versions of the product would misread raises it; an
additional array that they ignore does not."""
FAMILY = "isolation_forest"
SCORING, ESTIMATOR, CARD = "scoring.npz", "model.joblib", "model_card.md"

Arrays = Mapping[str, npt.NDArray[Any]]

_DETECTORS: Mapping[str, type[Detector]] = {
    PrototypeDetector.name: PrototypeDetector,
    SignalDetector.name: SignalDetector,
}
_LIBRARIES = ("scikit-learn", "numpy", "pandas", "joblib", "anomaly")
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time of a zip archive: bytes must not hold "now"


@dataclass(frozen=True)
class Artefact:
    """Where a version's files lie, relative to the models' URL, and their hashes."""

    folder: str
    sha256: Mapping[str, str]


def version_folder(version: int) -> str:
    """Name of the folder of a version, below the models' URL."""
    return f"{FAMILY}/v{version:04d}"


class Registry:
    """The model artefacts below ``ANOMALY_MODELS_URL``.

    Parameters
    ----------
    models_url : str
        A path, a ``file://`` URL or an ``s3://`` URL.

    Raises
    ------
    SettingsError
        For a URL of another kind.
    """

    def __init__(self, models_url: str) -> None:
        self.models_url = models_url
        self.store = open_store(models_url)

    def write(self, folder: str, files: Mapping[str, bytes], token: str) -> Artefact:
        """Write a version's files, and return their hashes.

        Raises
        ------
        ArtefactError
            When the folder cannot be written, or exists already: no file is ever replaced.
        """
        self.store.write(folder, files, token)
        return Artefact(folder, {name: _sha256(content) for name, content in files.items()})

    def sweep(self, folder: str, token: str, sha256: Mapping[str, str] | None) -> bool:
        """Remove the files that a killed training or a retired version left, if they are ours.

        Another database may share the models folder and have taken the same number. A folder
        is ours if its manifest names the training's token or, for a registered version, if the
        manifest's hash is the one on record.

        Returns
        -------
        bool
            False where the folder belongs to another database; then it stays.

        Raises
        ------
        ArtefactError
            When it cannot be removed now, or `folder` is no folder of a version.
        """
        self.store.remove_unfinished(folder, token)
        names = self.store.names(folder)
        if names is None:
            return True
        manifest = self.store.read(folder, MANIFEST) if MANIFEST in names else b""
        known = (sha256 or {}).get(MANIFEST)
        if not manifest or not (_token(manifest) == token or _sha256(manifest) == known):
            return False
        self.store.remove(folder, token)
        return True

    def highest_version(self) -> int:
        """The highest version number that has a folder; 0 where there is none.

        Folders of another database count too: it may share the models folder.
        """
        numbers = (name[1:] for name in self.store.folders(FAMILY) if name.startswith("v"))
        return max((int(number) for number in numbers if number.isdecimal()), default=0)

    def load(self, artefact: Artefact) -> Model:
        """Open a version for scoring: only arrays and JSON, no pickle.

        Raises
        ------
        ArtefactError
            When any file is missing, extra or changed, or the format is unknown: then nothing
            was opened. Also when it was trained on other signals than this version measures.
        """
        return _load(self.models_url, artefact.folder, tuple(sorted(artefact.sha256.items())))

    def load_estimator(self, artefact: Artefact) -> Any:
        """Open the scikit-learn object that was trained; it is a pickle.

        Raises
        ------
        ArtefactError
            As `load`, and when another scikit-learn wrote it. Then nothing was unpickled.
        """
        import joblib

        contents = self._verified(artefact)
        manifest = _manifest(self.place(artefact), contents[MANIFEST])
        _check_scikit_learn(self.place(artefact), manifest)
        return joblib.load(BytesIO(contents[ESTIMATOR]))

    def verify(self, artefact: Artefact) -> None:
        """Compare every file with its hash, and open the arrays.

        Raises
        ------
        ArtefactError
            As `load`.
        """
        _open(self.place(artefact), self._verified(artefact))

    def read(self, artefact: Artefact, name: str) -> bytes:
        """Content of one file, such as the model card.

        Raises
        ------
        ArtefactError
            When the version has no such file, or as `load`.
        """
        if name not in artefact.sha256:
            raise ArtefactError(f"{self.place(artefact)} has no {name}")
        return self._verified(artefact)[name]

    def place(self, artefact: Artefact) -> str:
        """Where a version's files lie, for people."""
        return self.store.place(artefact.folder)

    def _verified(self, artefact: Artefact) -> dict[str, bytes]:
        return _verified(self.store, artefact.folder, artefact.sha256)


def artefact_files(
    model: Model, estimator: object, manifest: Mapping[str, Any]
) -> dict[str, bytes]:
    """A version's files by name; the same model gives the same bytes of `SCORING`.

    Parameters
    ----------
    estimator : object
        What scikit-learn trained, for `ESTIMATOR`.
    """
    import joblib

    whole = BytesIO()
    joblib.dump(estimator, whole, compress=3)
    details = {
        "format": FORMAT,
        "detector": model.detector.name,
        "reading_kind": model.reading_kind,
        # Only if one is set: other artefacts stay what they were, byte for byte.
        **({"reading_unit": model.reading_unit} if model.reading_unit else {}),
        "interval_minutes": model.interval_minutes,
        "library_versions": library_versions(),
        **manifest,
    }
    return {
        # The manifest comes first: a sweep reads in it whose folder it is, and writing may have
        # been killed after any file.
        MANIFEST: (json.dumps(details, indent=2) + "\n").encode(),
        SCORING: pack_arrays(model.arrays()),
        ESTIMATOR: whole.getvalue(),
    }


def pack_arrays(arrays: Arrays) -> bytes:
    """Arrays as an ``.npz`` without a pickle.

    The same arrays give the same bytes: unlike with ``np.savez`` there is no time of writing.
    """
    packed = BytesIO()
    with ZipFile(packed, "w", ZIP_DEFLATED) as archive:
        for name in sorted(arrays):
            content = BytesIO()
            np.lib.format.write_array(content, np.asarray(arrays[name]), allow_pickle=False)
            entry = ZipInfo(f"{name}.npy", _EPOCH)
            entry.compress_type = ZIP_DEFLATED
            archive.writestr(entry, content.getvalue())
    return packed.getvalue()


def unpack_arrays(packed: bytes) -> dict[str, npt.NDArray[Any]]:
    """Open an ``.npz``; an array of objects is refused, for it would be a pickle."""
    with np.load(BytesIO(packed), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def library_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that a model depends on."""
    return {"python": platform.python_version()} | {
        name: library_version(name) for name in _LIBRARIES
    }


@lru_cache(maxsize=8)  # chosen: some MB each; the API judges the past by old versions, too
def _load(models_url: str, folder: str, sha256: tuple[tuple[str, str], ...]) -> Model:
    store = open_store(models_url)
    return _open(store.place(folder), _verified(store, folder, dict(sha256)))


def _open(place: str, contents: Mapping[str, bytes]) -> Model:
    manifest = _manifest(place, contents[MANIFEST])
    detector = _DETECTORS.get(manifest["detector"])
    if detector is None:
        raise ArtefactError(
            f"{place} holds the detector {manifest['detector']!r}, which this version does not"
            " know: use the version of the product that wrote it, or train again"
        )
    try:
        arrays = unpack_arrays(contents[SCORING])
        return Model.from_arrays(
            detector,
            arrays,
            manifest["reading_kind"],
            manifest["interval_minutes"],
            manifest.get("reading_unit", ""),
        )
    except ArtefactError as error:
        raise ArtefactError(f"{place}/{SCORING}: {error}") from None
    except (KeyError, ValueError, BadZipFile) as error:
        raise ArtefactError(
            f"{place}/{SCORING} does not hold what a {manifest['detector']} needs ({error}):"
            " train a new version"
        ) from None


def _token(manifest: bytes) -> str | None:
    try:
        found = json.loads(manifest)
    except ValueError:
        return None
    return found.get("token") if isinstance(found, dict) else None


def _manifest(place: str, content: bytes) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads(content)
    if manifest.get("format") != FORMAT:
        raise ArtefactError(
            f"{place} has format {manifest.get('format')!r}, this version reads {FORMAT}:"
            " use the version of the product that wrote it, or train again"
        )
    return manifest


def _verified(store: Store, folder: str, sha256: Mapping[str, str]) -> dict[str, bytes]:
    """Read every file once, and return only bytes that match their hash."""
    place, found = store.place(folder), store.names(folder)
    if found is None:
        raise ArtefactError(
            f"{place} is missing: set ANOMALY_MODELS_URL to where the models are, restore it from a"
            " backup, or train a new version"
        )
    if found != set(sha256):
        odd = ", ".join(sorted(found ^ set(sha256)))
        raise ArtefactError(
            f"{place} does not hold the files that were registered ({odd}): restore it from a"
            " backup, or promote another version"
        )
    contents = {name: store.read(folder, name) for name in sha256}
    for name, expected in sha256.items():
        if (actual := _sha256(contents[name])) != expected:
            raise ArtefactError(
                f"{place}/{name} was changed: sha256 {actual[:12]}, registered {expected[:12]};"
                " it was not opened. Restore it from a backup, or promote another version"
            )
    return contents


def _check_scikit_learn(place: str, manifest: Mapping[str, Any]) -> None:
    wrote, here = manifest["library_versions"]["scikit-learn"], library_version("scikit-learn")
    if wrote != here:
        raise ArtefactError(
            f"{place}/{ESTIMATOR} was written with scikit-learn {wrote}, here is {here}: install"
            f" scikit-learn {wrote} to open it; scoring does not need it"
        )


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
