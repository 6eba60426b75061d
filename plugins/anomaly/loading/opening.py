"""Open a file of readings: what it is, and its bytes without compression."""

import gzip
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from anomaly.errors import IngestError
from anomaly.loading import nem12

_GZIP = b"\x1f\x8b"
_ZIP = b"PK\x03\x04"
_PARQUET = b"PAR1"
_OTHERS = {
    b"\xd0\xcf\x11\xe0": "an old Excel file (.xls): save it as .xlsx",
    b"%PDF": "a PDF: export the readings as CSV or .xlsx",
    b"SQLite format 3": "an SQLite database: export the readings as CSV",
    b"Rar!": "a RAR archive: unpack it",
    b"7z\xbc\xaf": "a 7z archive: unpack it",
    b"\x28\xb5\x2f\xfd": "compressed by zstd: unpack it, or compress it by gzip",
    b"BZh": "compressed by bzip2: unpack it, or compress it by gzip",
    b"\xfd7zXZ": "compressed by xz: unpack it, or compress it by gzip",
}


class Format(StrEnum):
    """What a file is, without its compression."""

    TEXT = "text"
    JSON = "JSON lines"
    PARQUET = "Parquet"
    WORKBOOK = "Excel workbook"
    NEM12 = "NEM12"


class FileSource:
    """A file on disk, decided by its content and not by its name.

    Attributes
    ----------
    name : str
        The file's name for messages.
    path : Path
        A regular file; of a pipe: its copy.
    format : Format
        What the file is.
    compression : str
        ``gzip``, ``zip`` or empty.
    size : int
        Bytes on disk.
    """

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.path = path
        self.size = path.stat().st_size
        self.read = 0
        self._member: str | None = None
        with path.open("rb") as raw:
            start = raw.read(16)
        for mark, said in _OTHERS.items():
            if start.startswith(mark):
                raise IngestError(f"{name} is {said}")
        self.compression = ""
        if start.startswith(_GZIP):
            self.compression = "gzip"
        elif start.startswith(_ZIP):
            self._look_into_zip()
        with self.stream() as stream:
            self.format = self._format(stream.read(64))
        if self.format is Format.PARQUET and self.compression:
            raise IngestError(f"{name} is a compressed Parquet file: unpack it")

    @contextmanager
    def stream(self) -> Iterator[BinaryIO]:
        """Open the file's bytes, without compression.

        Raises
        ------
        IngestError
            When the compression is damaged, also while the bytes are read.
        """
        try:
            with _Counted(self) as raw:
                if self.compression == "gzip":
                    yield cast(BinaryIO, gzip.GzipFile(fileobj=raw))
                elif self._member is not None:
                    with zipfile.ZipFile(raw) as archive, archive.open(self._member) as member:
                        yield cast(BinaryIO, member)
                else:
                    yield cast(BinaryIO, raw)
        except (gzip.BadGzipFile, zipfile.BadZipFile, EOFError, zlib.error) as error:
            raise IngestError(
                f"{self.name} is a damaged {self.compression or 'zip'} file ({error}): copy it"
                " again"
            ) from None
        except RuntimeError as error:  # zipfile says so of files with a password
            if "password" not in str(error):
                raise
            raise IngestError(f"{self.name} is protected by a password: unpack it") from None

    def _look_into_zip(self) -> None:
        try:
            with zipfile.ZipFile(self.path) as archive:
                names = [one.filename for one in archive.infolist() if not one.is_dir()]
        except zipfile.BadZipFile as error:
            raise IngestError(
                f"{self.name} is a damaged zip file ({error}): copy it again"
            ) from None
        if "xl/workbook.xml" in names:
            return
        if "content.xml" in names:
            raise IngestError(f"{self.name} is an OpenDocument file: save it as .xlsx or CSV")
        files = [
            name
            for name in names
            if not (name.startswith("__MACOSX/") or name.rpartition("/")[2].startswith("."))
        ]
        if len(files) != 1:
            shown = ", ".join(files[:6]) + ", ..." * (len(files) > 6)
            raise IngestError(
                f"{self.name} holds {len(files)} files ({shown}): unpack it, and load them one by"
                " one"
            )
        self.compression, self._member = "zip", files[0]

    def _format(self, start: bytes) -> Format:
        if start.startswith(_PARQUET):
            return Format.PARQUET
        if start.startswith(_ZIP):
            if self.compression:
                raise IngestError(f"{self.name} is a compressed archive or workbook: unpack it")
            return Format.WORKBOOK
        text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
        if text.startswith(nem12.MARK):
            return Format.NEM12
        return Format.JSON if text.startswith((b"{", b"[{", b"[\n", b"[ ")) else Format.TEXT


class _Counted:
    """A raw file that notes how far it was read, for a progress bar."""

    def __init__(self, source: FileSource) -> None:
        self._source = source
        self._raw: IO[bytes] = source.path.open("rb")

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self._raw.close()

    def read(self, size: int = -1) -> bytes:
        chunk = self._raw.read(size)
        self._source.read = self._raw.tell()
        return chunk

    def read1(self, size: int = -1) -> bytes:
        return self.read(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    def __iter__(self) -> Iterator[bytes]:
        for line in self._raw:
            self._source.read += len(line)
            yield line


@contextmanager
def open_source(file: Path) -> Iterator[FileSource]:
    """Open a file; a pipe is copied to a temporary file first, for a file is read twice.

    Raises
    ------
    IngestError
        When the file cannot be opened, or is of a format that is not read.
    """
    with ExitStack() as stack:
        try:
            path = file
            if not (file.is_dir() or stat.S_ISREG(file.stat().st_mode)):
                copy = stack.enter_context(tempfile.NamedTemporaryFile(prefix="anomaly-readings-"))
                with file.open("rb") as pipe:
                    shutil.copyfileobj(pipe, copy)
                copy.flush()
                path = Path(copy.name)
            source = FileSource(str(file), path)
        except FileNotFoundError:
            raise IngestError(f"{file} does not exist: check the path") from None
        except OSError as error:
            raise IngestError(f"{file} cannot be read: {error.strerror}: check the path") from None
        yield source
