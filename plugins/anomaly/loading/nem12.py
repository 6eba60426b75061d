"""NEM12, the format in which Australian meter data are exchanged, as a table of rows."""

import csv
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import islice
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from anomaly.errors import IngestError
from anomaly.loading.problems import Problem, Problems
from anomaly.loading.text_files import Block

MARK = b"100,NEM12"
ZONE = "+1000"
"""Market time, all year. Times name the start of their interval."""
BLOCK_ROWS = 50_000
_MINUTES_PER_DAY = 1440


class Nem12Reader:
    """The readings of a NEM12 file, in blocks of time, meter and energy.

    A row's line is that of its day. A meter is its NMI and the suffix of its register, such as
    ``4103035332/E1``. An interval without a value has no reading.

    Parameters
    ----------
    stream : binary file
        From the beginning of the file, decompressed.
    """

    def __init__(self, stream: BinaryIO, file: str, problems: Problems | None = None) -> None:
        self._rows = csv.reader(line.decode("ascii", "replace") for line in stream)
        self._file = file
        self._problems = problems
        self._meter, self._minutes = "", 0
        self.unit = ""

    def find_unit(self) -> str:
        """The unit of the first meter, such as kWh."""
        for _ in self._readings():
            return self.unit
        raise IngestError(f"{self._file} is NEM12 without a reading: export it again")

    def blocks(self) -> Iterator[Block]:
        """Yield the readings.

        Raises
        ------
        IngestError
            When meters have different units, or a day stands above any meter.
        """
        readings = self._readings()
        while chunk := list(islice(readings, BLOCK_ROWS)):
            lines, times, meters, values = zip(*chunk, strict=True)
            columns = [pa.array(cells, pa.string()) for cells in (times, meters, values)]
            yield Block(np.array(lines), columns)

    def _readings(self) -> Iterator[tuple[int, str, str, str]]:
        for row in self._rows:
            line = self._rows.line_num
            if row and row[0] == "200":
                self._begin_meter(line, row)
            elif row and row[0] == "300":
                yield from self._day(line, row)

    def _begin_meter(self, line: int, row: list[str]) -> None:
        try:
            self._meter, self._minutes = f"{row[1]}/{row[4]}", int(row[8])
            unit = {"KWH": "kWh", "WH": "Wh", "MWH": "MWh"}[row[7].upper()]
        except (IndexError, KeyError, ValueError):
            raise IngestError(
                f"{self._file}, line {line}: {','.join(row)[:80]!r} is no 200 record of energy:"
                " load registers of Wh, kWh or MWh"
            ) from None
        if self.unit and unit != self.unit:
            raise IngestError(
                f"{self._file}, line {line}: the unit is {unit}, and was {self.unit} before: load"
                " the meters from files of their own"
            )
        self.unit = unit

    def _day(self, line: int, row: list[str]) -> Iterator[tuple[int, str, str, str]]:
        if not self._minutes:
            raise IngestError(f"{self._file}, line {line}: a day stands above any 200 record")
        count = _MINUTES_PER_DAY // self._minutes
        values = row[2 : 2 + count]
        try:
            day = datetime.strptime(row[1], "%Y%m%d")  # noqa: DTZ007
        except (IndexError, ValueError):
            day = None
        if day is None or len(values) < count:
            if self._problems is not None:
                self._problems.add(line, _fault(line, row, count), row)
            return
        for number, value in enumerate(values):
            begin = day + timedelta(minutes=number * self._minutes)
            yield line, f"{begin:%Y-%m-%d %H:%M}{ZONE}", self._meter, value


def _fault(line: int, row: list[str], count: int) -> Problem:
    return Problem(
        f"line {line}",
        f"{','.join(row)[:60]!r} is no day of {count} values",
        "export the file again",
    )
