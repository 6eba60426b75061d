"""What a user says of a file, where it does not tell itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from anomaly.errors import IngestError
from anomaly.loading.number_parsing import Decimal
from anomaly.loading.time_parsing import Order
from anomaly.settings import ReadingKind, TimestampLabel


@dataclass(frozen=True)
class FileOptions:
    """What is said of one file; None: as the settings say, or as the file tells.

    Attributes
    ----------
    columns : mapping of str to str
        Columns of the file, and what they are in the table; empty: left out.
    ignore_unknown : bool
        Leave out columns that the table does not know.
    kind, unit, timezone, label
        Of the file's readings and timestamps. Where the table holds another unit, label or zone,
        the readings are converted.
    dates : Order, optional
        Whether 3/4/2024 is the third of April or the fourth of March.
    decimal : Decimal, optional
        Whether 1.234 is a little more than one, or more than a thousand.
    encoding : str, optional
        Of a text file.
    sheet : str, optional
        Of a workbook.
    rejects : Path, optional
        Where refused rows are written, as CSV.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    ignore_unknown: bool = False
    kind: ReadingKind | None = None
    unit: str | None = None
    timezone: str | None = None
    label: TimestampLabel | None = None
    dates: Order | None = None
    decimal: Decimal | None = None
    encoding: str | None = None
    sheet: str | None = None
    rejects: Path | None = None


def parse_columns(pairs: Sequence[str]) -> dict[str, str]:
    """Read ``name in the file=name in the table`` pairs; ``name in the file=`` leaves it out.

    Raises
    ------
    IngestError
        When a pair has no ``=``, or a column is named twice.
    """
    columns: dict[str, str] = {}
    for pair in pairs:
        shown, equals, name = pair.rpartition("=")
        if not (equals and shown.strip()):
            raise IngestError(
                f"--columns {pair!r} names no pair: write 'name in the file=name in the table', or"
                " 'name in the file=' to leave it out"
            )
        if shown.strip() in columns:
            raise IngestError(f"--columns names {shown.strip()!r} twice: keep one")
        columns[shown.strip()] = name.strip()
    return columns
