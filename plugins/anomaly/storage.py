"""Where model artefacts lie: folders of files below a local path or in an object store.

A folder is written once and never changed. On a file system it appears whole, by a
rename. An object store has no such thing: there a folder counts once the database names
it, and until then it is a draft (`anomaly.postgres.versions`).
"""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit
from urllib.request import url2pathname

from anomaly.errors import ArtefactError, SettingsError


class Store(Protocol):
    """Folders of files; names of folders are relative, with slashes."""

    def place(self, folder: str) -> str:
        """Where a folder lies, for people."""

    def write(self, folder: str, files: Mapping[str, bytes], token: str) -> None:
        """Write a folder that is not there yet; `token` names what is written meanwhile.

        Raises
        ------
        ArtefactError
            When it is there already, or cannot be written.
        """

    def names(self, folder: str) -> set[str] | None:
        """Names of what a folder holds; None where there is no folder."""

    def read(self, folder: str, name: str) -> bytes:
        """Content of a file."""

    def remove(self, folder: str, token: str) -> None:
        """Remove a folder, and what was being written of it; safe to repeat."""

    def folders(self, parent: str) -> set[str]:
        """Names of the folders in `parent`."""


def open_store(url: str) -> Store:
    """Open the store at a path, a ``file://`` URL or an ``s3://`` URL.

    Raises
    ------
    SettingsError
        For a URL of another kind, or when the library for it is not installed.
    """
    parts = urlsplit(url)
    if parts.scheme in ("", "file"):
        path = url2pathname(parts.path) if parts.scheme == "file" else url
        return LocalStore(Path(path))
    if parts.scheme == "s3" and parts.netloc:
        return ObjectStore(url)
    raise SettingsError(
        f"ANOMALY_MODELS_URL is {url!r}: write a path, file:///an/absolute/path or"
        " s3://bucket/folder"
    )


class LocalStore:
    """Folders below a local one."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def place(self, folder: str) -> str:
        """Where a folder lies."""
        return str(self.root / folder)

    def write(self, folder: str, files: Mapping[str, bytes], token: str) -> None:
        """Write under a temporary name, flush to the disk, rename."""
        target = self.root / folder
        temporary = self._temporary(folder, token)
        with self._writing():
            temporary.mkdir(parents=True)
            for name, content in files.items():
                (temporary / name).write_bytes(content)
                _flush(temporary / name)
            _flush(temporary)
            temporary.rename(target)  # refuses a folder that holds something
            _flush(target.parent)

    def names(self, folder: str) -> set[str] | None:
        """Names of what a folder holds."""
        path = self.root / folder
        return {entry.name for entry in path.iterdir()} if path.is_dir() else None

    def read(self, folder: str, name: str) -> bytes:
        """Content of a file."""
        return (self.root / folder / name).read_bytes()

    def remove(self, folder: str, token: str) -> None:
        """Remove a folder, whole or half written."""
        for path in (self.root / folder, self._temporary(folder, token)):
            with self._writing():
                if path.exists():
                    shutil.rmtree(path)

    def folders(self, parent: str) -> set[str]:
        """Names of the folders in `parent`."""
        path = self.root / parent
        return {entry.name for entry in path.iterdir()} if path.is_dir() else set()

    def _temporary(self, folder: str, token: str) -> Path:
        return (self.root / folder).parent / f".writing-{token}"

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ArtefactError(
                f"cannot write below {self.root} ({error.strerror}): give this account the folder"
                " of ANOMALY_MODELS_URL; nothing was registered"
            ) from None


class ObjectStore:
    """Folders below a prefix of an S3 bucket, through fsspec.

    Endpoint, region and credentials are found as in every AWS client: environment, shared
    configuration, instance role.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._root = self.url.removeprefix("s3://")
        self._fs = _file_system()

    def place(self, folder: str) -> str:
        """Where a folder lies."""
        return f"{self.url}/{folder}"

    def write(self, folder: str, files: Mapping[str, bytes], token: str) -> None:
        """Write each object; the folder counts once the database names it."""
        if self.names(folder):
            raise ArtefactError(
                f"{self.place(folder)} is there already, and nothing that exists is replaced:"
                " train again, for another number"
            )
        with self._reaching():
            for name, content in files.items():
                self._fs.pipe_file(f"{self._root}/{folder}/{name}", content)

    def names(self, folder: str) -> set[str] | None:
        """Names of what a folder holds."""
        prefix = f"{self._root}/{folder}/"
        with self._reaching():
            found = self._fs.find(prefix)
        return {str(path).removeprefix(prefix) for path in found} or None

    def read(self, folder: str, name: str) -> bytes:
        """Content of an object."""
        with self._reaching():
            return bytes(self._fs.cat_file(f"{self._root}/{folder}/{name}"))

    def remove(self, folder: str, token: str) -> None:
        """Remove every object of a folder."""
        for name in self.names(folder) or ():
            with self._reaching():
                self._fs.rm_file(f"{self._root}/{folder}/{name}")

    def folders(self, parent: str) -> set[str]:
        """Names of the folders in `parent`."""
        prefix = f"{self._root}/{parent}/"
        with self._reaching():
            found = self._fs.find(prefix)
        return {str(path).removeprefix(prefix).split("/")[0] for path in found}

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except (OSError, BotoCoreError, ClientError) as error:
            raise ArtefactError(
                f"cannot reach {self.url} ({_first_line(error)}): check the bucket of"
                " ANOMALY_MODELS_URL, AWS_ENDPOINT_URL and the credentials; nothing was registered"
            ) from None


def _file_system() -> Any:
    import fsspec

    try:
        return fsspec.filesystem("s3", use_listings_cache=False, skip_instance_cache=True)
    except ImportError:
        raise SettingsError(
            "ANOMALY_MODELS_URL is an s3:// URL, and s3fs is not installed: install"
            " requirements-s3.txt"
        ) from None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
