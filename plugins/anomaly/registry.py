"""Model artefacts on disk: written whole or not at all, verified before anything is opened."""

import hashlib
import json
import os
import platform
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version as library_version
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import joblib
import pandas as pd

from anomaly.detector import Detector
from anomaly.errors import ArtefactError, SettingsError

FORMAT = 1
_FAMILY = "isolation_forest"
_MODEL, _MANIFEST = "model.joblib", "manifest.json"
_LIBRARIES = ("scikit-learn", "numpy", "pandas", "joblib", "anomaly")


@dataclass(frozen=True)
class Model:
    """A trained model: the detector, and what training saw of each machine.

    Attributes
    ----------
    detector : Detector
    profiles : DataFrame
        As `anomaly.quality.profile` made it.
    reading_kind : str
    interval_minutes : int
    """

    detector: Detector
    profiles: pd.DataFrame
    reading_kind: str
    interval_minutes: int


@dataclass(frozen=True)
class Artefact:
    """Where a version's files lie, relative to the models' folder, and their hashes."""

    folder: str
    sha256: Mapping[str, str]


class Registry:
    """The folder of model artefacts.

    Parameters
    ----------
    models_url : str
        A path or a ``file://`` URL.

    Raises
    ------
    SettingsError
        For a URL of another kind.
    """

    def __init__(self, models_url: str) -> None:
        self.root = _local_folder(models_url)

    def save(self, model: Model, version: int, manifest: Mapping[str, Any]) -> Artefact:
        """Write version `version`, under a temporary name first.

        Raises
        ------
        ArtefactError
            When the folder cannot be written, or is there already: nothing that
            exists is ever replaced.
        """
        folder = self._path(version)
        with self._temporary_folder() as temporary:
            joblib.dump({"format": FORMAT, "model": model}, temporary / _MODEL)
            text = json.dumps({"format": FORMAT, "version": version, **manifest}, indent=2)
            (temporary / _MANIFEST).write_text(text + "\n", encoding="utf-8")
            sha256 = {path.name: _sha256(path.read_bytes()) for path in temporary.iterdir()}
            for path in temporary.iterdir():
                _flush(path)
            temporary.rename(folder)  # refuses a folder that holds something
        _flush(folder.parent)
        return Artefact(folder.relative_to(self.root).as_posix(), sha256)

    def highest_version(self) -> int:
        """The highest number that has a folder, whoever wrote it; 0 where there is none.

        A killed training may have left one, or another database shares the models.
        """
        folders = (self.root / _FAMILY).glob("v*")
        return max((int(path.name[1:]) for path in folders if path.name[1:].isdecimal()), default=0)

    def load(self, artefact: Artefact) -> Model:
        """Open a version whose bytes match the database's hashes.

        Raises
        ------
        ArtefactError
            When a file is missing, extra or changed, was written by another
            scikit-learn, or has an unknown format. Nothing was unpickled then.
        """
        return _load(self.root, artefact.folder, tuple(sorted(artefact.sha256.items())))

    def _path(self, version: int) -> Path:
        return self.root / _FAMILY / f"v{version:04d}"

    @contextmanager
    def _temporary_folder(self) -> Iterator[Path]:
        family = self.root / _FAMILY
        temporary = family / f".writing-{uuid.uuid4().hex}"
        try:
            temporary.mkdir(parents=True)
            yield temporary
        except OSError as error:
            raise ArtefactError(
                f"cannot write below {self.root} ({error.strerror}): give this account the folder"
                " of ANOMALY_MODELS_URL; nothing was registered"
            ) from None
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def library_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that a model depends on."""
    return {"python": platform.python_version()} | {
        name: library_version(name) for name in _LIBRARIES
    }


@lru_cache(maxsize=4)
def _load(root: Path, folder: str, sha256: tuple[tuple[str, str], ...]) -> Model:
    contents = _verified(root / folder, dict(sha256))
    manifest = json.loads(contents[_MANIFEST])
    if manifest.get("format") != FORMAT:
        raise ArtefactError(
            f"{folder} has format {manifest.get('format')!r}, this version reads {FORMAT}:"
            " use the version of the product that wrote it, or train again"
        )
    _check_scikit_learn(folder, manifest)
    loaded = joblib.load(BytesIO(contents[_MODEL]))["model"]
    assert isinstance(loaded, Model)
    return loaded


def _verified(path: Path, sha256: Mapping[str, str]) -> dict[str, bytes]:
    """Read every file once, and hand on only bytes that match."""
    if not path.is_dir():
        raise ArtefactError(f"{path} is missing: restore it from a backup, or train a new version")
    found = {entry.name for entry in path.iterdir()}
    if found != set(sha256):
        odd = ", ".join(sorted(found ^ set(sha256)))
        raise ArtefactError(
            f"{path} does not hold the files that were registered ({odd}): restore it from a backup"
        )
    contents = {name: (path / name).read_bytes() for name in sha256}
    for name, expected in sha256.items():
        if (actual := _sha256(contents[name])) != expected:
            raise ArtefactError(
                f"{path / name} was changed: sha256 {actual[:12]}, registered {expected[:12]};"
                " it was not opened. Restore it from a backup, or train a new version"
            )
    return contents


def _check_scikit_learn(folder: str, manifest: Mapping[str, Any]) -> None:
    wrote, here = manifest["library_versions"]["scikit-learn"], library_version("scikit-learn")
    if wrote != here:
        raise ArtefactError(
            f"{folder} was written with scikit-learn {wrote}, here is {here}:"
            f" install scikit-learn {wrote}, or train a new version"
        )


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _local_folder(models_url: str) -> Path:
    parts = urlsplit(models_url)
    if parts.scheme == "file":
        return Path(url2pathname(parts.path)).absolute()
    if "://" in models_url:
        raise SettingsError(
            f"ANOMALY_MODELS_URL is {models_url!r}: write a folder or a file:// URL"
        )
    return Path(models_url).absolute()
