"""Store model artefacts: folders of files below a local path or in an object store.

A folder is written once and never changed. On a file system a rename makes it appear whole. An
object store has no rename: there a folder counts once the database names it, and until then it
is a draft (`anomaly.database.model_versions`).

Names of folders and files come from a database that somebody may have written to. So only
``family/v0001`` and plain files in it are ever opened, written or removed, and no link is followed.
"""

import errno
import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit
from urllib.request import url2pathname

from anomaly.errors import ArtefactError, FolderTakenError, SettingsError

MANIFEST = "manifest.json"
"""It tells to whom a folder belongs, so among objects it is written first and removed last."""

_FOLDER = re.compile(r"[a-z][a-z0-9_]*/v[0-9]{4,9}", re.ASCII)
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)
_TOKEN = re.compile(r"[0-9a-z]+", re.ASCII)


class Store(Protocol):
    """Folders of files; names of folders are relative, with slashes."""

    def place(self, folder: str) -> str:
        """The path or URL of a folder, for messages."""

    def write(self, folder: str, files: Mapping[str, bytes], token: str) -> None:
        """Write a folder that does not exist yet; `token` names it while it is being written.

        Raises
        ------
        ArtefactError
            FolderTakenError when the folder exists already; also when it cannot be written.
        """

    def names(self, folder: str) -> set[str] | None:
        """Names of the entries of a folder; None where there is no folder."""

    def read(self, folder: str, name: str) -> bytes:
        """Content of a file.

        Raises
        ------
        ArtefactError
            When it is not a regular file, or cannot be read.
        """

    def remove_unfinished(self, folder: str, token: str) -> None:
        """Remove what was written of a folder under a token so far; safe to repeat."""

    def remove(self, folder: str, token: str) -> None:
        """Remove a folder, and what was written of it so far; safe to repeat."""

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
        target, temporary = self._path(folder), self._temporary(folder, token)
        with self._writing():
            temporary.mkdir(parents=True)
            for name, content in files.items():
                (temporary / _plain(name)).write_bytes(content)
                _flush(temporary / name)
            _flush(temporary)
            if target.exists():  # a rename would replace an empty folder
                raise _taken(self.place(folder))
            try:
                temporary.rename(target)  # refuses a folder that holds something
            except OSError:
                if target.exists():
                    raise _taken(self.place(folder)) from None
                raise
            _flush(target.parent)

    def names(self, folder: str) -> set[str] | None:
        """Names of what a folder holds."""
        path = self._path(folder)
        with self._reading(path):
            return {entry.name for entry in path.iterdir()} if path.is_dir() else None

    def read(self, folder: str, name: str) -> bytes:
        """Content of a regular file; opening does not wait for a pipe that nobody writes to."""
        path = self._path(folder) / _plain(name)
        with self._reading(path):
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.close(descriptor)
                raise _no_file(path)
            with os.fdopen(descriptor, "rb") as file:
                return file.read()

    def remove_unfinished(self, folder: str, token: str) -> None:
        """Remove the temporary folder of a token."""
        temporary = self._temporary(folder, token)
        with self._removing():
            if temporary.exists():
                shutil.rmtree(temporary)

    def remove(self, folder: str, token: str) -> None:
        """Rename a folder, then remove it: if killed half way, no half of it has the name."""
        self.remove_unfinished(folder, token)
        path = self._path(folder)
        with self._removing():
            if path.exists():
                path.rename(self._temporary(folder, token))
        self.remove_unfinished(folder, token)

    def folders(self, parent: str) -> set[str]:
        """Names of the folders in `parent`."""
        path = self.root / parent
        with self._reading(path):
            return {entry.name for entry in path.iterdir()} if path.is_dir() else set()

    def _path(self, folder: str) -> Path:
        """The path of a folder, if the name has our form and no link leads there."""
        path = self.root / _shaped(folder)
        for part in (path.parent, path):
            if part.is_symlink():
                raise ArtefactError(
                    f"{part} is a link, it was not followed: put the folder itself in its place,"
                    " or set ANOMALY_MODELS_URL to where the models are"
                )
        return path

    def _temporary(self, folder: str, token: str) -> Path:
        if not _TOKEN.fullmatch(token):
            raise ArtefactError(
                f"{token!r} is no token of a training: nothing was opened or removed"
            )
        return self._path(folder).parent / f".writing-{token}"

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ArtefactError(
                f"cannot write below {self.root} ({_why(error)}): give this account the folder"
                " of ANOMALY_MODELS_URL; nothing was registered"
            ) from None

    @contextmanager
    def _removing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ArtefactError(
                f"cannot remove a folder below {self.root} ({_why(error)}): give this account the"
                " folder of ANOMALY_MODELS_URL"
            ) from None

    @contextmanager
    def _reading(self, path: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise _no_file(path) from None
            raise ArtefactError(
                f"cannot read {path} ({_why(error)}): give this account the folder of"
                " ANOMALY_MODELS_URL, or restore the file from a backup"
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
        """Write each object, in the order given; the folder counts once the database names it."""
        if self.names(folder):
            raise _taken(self.place(folder))
        with self._reaching("; nothing was registered"):
            for name, content in files.items():
                self._fs.pipe_file(f"{self._path(folder)}/{_plain(name)}", content)

    def names(self, folder: str) -> set[str] | None:
        """Names of what a folder holds."""
        prefix = f"{self._path(folder)}/"
        with self._reaching():
            found = self._fs.find(prefix)
        return {str(path).removeprefix(prefix) for path in found} or None

    def read(self, folder: str, name: str) -> bytes:
        """Content of an object."""
        with self._reaching():
            return bytes(self._fs.cat_file(f"{self._path(folder)}/{_plain(name)}"))

    def remove_unfinished(self, folder: str, token: str) -> None:
        """Nothing: a bucket has no temporary names."""

    def remove(self, folder: str, token: str) -> None:
        """Remove every object of a folder, the manifest last."""
        for name in sorted(self.names(folder) or (), key=lambda name: name == MANIFEST):
            with self._reaching():
                self._fs.rm_file(f"{self._path(folder)}/{name}")

    def folders(self, parent: str) -> set[str]:
        """Names of the folders in `parent`."""
        prefix = f"{self._root}/{parent}/"
        with self._reaching():
            found = self._fs.find(prefix)
        return {str(path).removeprefix(prefix).split("/")[0] for path in found}

    def _path(self, folder: str) -> str:
        return f"{self._root}/{_shaped(folder)}"

    @contextmanager
    def _reaching(self, outcome: str = "") -> Iterator[None]:
        """Explain an error of the bucket; `outcome` ends the message."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except (OSError, BotoCoreError, ClientError) as error:
            raise ArtefactError(
                f"cannot reach {self.url} ({_first_line(error)}): check the bucket of"
                f" ANOMALY_MODELS_URL, AWS_ENDPOINT_URL and the credentials{outcome}"
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


def _shaped(folder: str) -> str:
    if not _FOLDER.fullmatch(folder):
        raise ArtefactError(
            f"{folder!r} is no folder of a model version, such as isolation_forest/v0001: nothing"
            " was opened or removed; see who has written it to the database"
        )
    return folder


def _plain(name: str) -> str:
    if not _FILE.fullmatch(name):
        raise ArtefactError(f"{name!r} is no file of a model version: it was not opened")
    return name


def _taken(place: str) -> FolderTakenError:
    return FolderTakenError(
        f"{place} is there already, and nothing that exists is replaced: train again, for another"
        " number"
    )


def _no_file(path: Path) -> ArtefactError:
    return ArtefactError(
        f"{path} is no regular file, it was not opened: restore it from a backup, or promote"
        " another version"
    )


def _why(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
