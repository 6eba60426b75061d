"""What is wrong with a file: gathered while it is read, told at once, and written to a file."""

import csv
from bisect import insort
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from anomaly.errors import IngestError

_FIRST = b"line,reason,"
MOST_SHOWN = 10
"""Problems of a file that are named; of more there is only a count."""


@dataclass(frozen=True)
class Problem:
    """One thing in a file that cannot be read.

    Attributes
    ----------
    place : str
        Where it is, for example ``line 3, column machine_1``.
    fault : str
        What is wrong there, with the value found.
    advice : str
        The next step.
    """

    place: str
    fault: str
    advice: str


class Problems:
    """The problems of one file, in the order in which they were found.

    Parameters
    ----------
    file : str
        The file's name, for the message.
    header : sequence of str
        The names of its columns.
    rejects : Path, optional
        A CSV file to which the refused rows are written: their line, the reason and their cells.
        It is made when the first row is refused.

    Attributes
    ----------
    taken_for : str
        How the file was read, to be added to the message; empty: as everybody expects.
    """

    def __init__(self, file: str, header: Sequence[str], rejects: Path | None = None) -> None:
        self.taken_for = ""
        self._file = file
        self._header = header
        self._rejects = rejects
        self._out: TextIO | None = None
        self._shown: list[tuple[int, int, Problem]] = []  # by line, the first ones
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, line: int, problem: Problem, cells: Sequence[Any] = ()) -> None:
        """Note a problem of one row, and write the row to the file of refused rows."""
        self._count += 1
        insort(self._shown, (line, self._count, problem))
        del self._shown[MOST_SHOWN:]
        if self._rejects is not None:
            self._write(line, problem, cells)

    def add_many(self, count: int) -> None:
        """Count further problems that are not told one by one."""
        self._count += count

    @property
    def wants_all(self) -> bool:
        """Whether each refused row is written to a file."""
        return self._rejects is not None

    def raise_any(self) -> None:
        """Raise one error that tells all problems; return if there are none."""
        self.close()
        if self._count:
            raise IngestError(*self._lines())

    def close(self) -> None:
        """Close the file of refused rows."""
        if self._out is not None:
            with suppress(OSError):
                self._out.close()
            self._out = None

    def _lines(self) -> list[str]:
        also = self.taken_for
        kept = f"; the refused rows are in {self._rejects}" if self._rejects else ""
        shown = [problem for _, _, problem in self._shown]
        if self._count == 1:
            (only,) = shown
            return [f"{self._file}, {only.place}: {only.fault}: {only.advice}{also}{kept}"]
        lines = [f"{self._file} has {self._count} rows that cannot be read{also}{kept}:"]
        lines += [f"  {one.place}: {one.fault}" for one in shown]
        if more := self._count - len(shown):
            lines.append(f"  and {more} more")
        return [*lines, *dict.fromkeys(one.advice for one in shown)]

    def _refuse_other_files(self) -> None:
        """Write over earlier refused rows, but over nothing else."""
        assert self._rejects is not None
        if self._rejects.is_file() and self._rejects.stat().st_size:
            with self._rejects.open("rb") as other:
                if not other.read(len(_FIRST)).startswith(_FIRST):
                    raise IngestError(
                        f"{self._rejects} is there already, and holds no refused rows: choose"
                        " another file for them"
                    )

    def _write(self, line: int, problem: Problem, cells: Sequence[Any]) -> None:
        assert self._rejects is not None
        if self._out is None:
            self._refuse_other_files()
            try:
                self._out = self._rejects.open("w", newline="", encoding="utf-8")
            except OSError as error:
                raise IngestError(
                    f"{self._rejects} cannot be written: {error.strerror}: choose another file for"
                    " the refused rows"
                ) from None
            csv.writer(self._out).writerow(["line", "reason", *self._header])
        reason = f"{problem.place}: {problem.fault}"
        csv.writer(self._out).writerow([line, reason, *cells])
