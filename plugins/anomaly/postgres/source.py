"""The meter table: somebody else's, any name and layout, only ever read."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt
import pandas as pd
from psycopg2.sql import SQL, Composable, Identifier, Literal

from anomaly.errors import SourceError
from anomaly.postgres import binary
from anomaly.postgres.database import Transaction, int_array, sql_file
from anomaly.settings import Layout, Settings, TimestampLabel
from anomaly.windows import Window

_MACHINE_COLUMN = re.compile(r"machine_(\d+)")
LARGEST_ID = 999_999_999
UNREGISTERED = -(2**31)
"""In place of the id of a machine of a long table that is not registered yet."""
_WHOLE_TYPES = {"smallint", "integer", "bigint"}
_NUMBER_TYPES = _WHOLE_TYPES | {"real", "double precision", "numeric"}
_NAIVE, _AWARE = "timestamp without time zone", "timestamp with time zone"


class MeterSource:
    """Reads the meter table that the settings name.

    Raises
    ------
    SourceError
        When the table, a column or a type is not what the settings say.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._table = Identifier(settings.source_schema, settings.source_table)
        self._timestamp = Identifier(settings.source_timestamp_column)

    # What is there ------------------------------------------------------

    def describe(self, transaction: Transaction) -> "SourceShape":
        """Check the table against the settings and say what it holds."""
        settings = self.settings
        types = {
            row["name"]: row["type"]
            for row in transaction.rows(
                "source_columns", schema=settings.source_schema, table=settings.source_table
            )
        }
        if not types:
            raise SourceError(
                f"there is no table {settings.source_name} that this login may see:"
                " set ANOMALY_SOURCE_SCHEMA and ANOMALY_SOURCE_TABLE, or grant it"
            )
        naive = self._timestamp_is_naive(types)
        ingested_at = settings.source_ingested_at_column
        machines = self._machine_columns(types) if settings.source_layout is Layout.WIDE else {}
        if settings.source_layout is Layout.LONG:
            self._require(types, settings.source_machine_column, "ANOMALY_SOURCE_MACHINE_COLUMN")
            self._require_number(types, settings.source_value_column)
        numbered = types.get(settings.source_machine_column) in _WHOLE_TYPES
        return SourceShape(naive, ingested_at in types, machines, numbered)

    def _timestamp_is_naive(self, types: dict[str, str]) -> bool:
        column = self.settings.source_timestamp_column
        self._require(types, column, "ANOMALY_SOURCE_TIMESTAMP_COLUMN")
        if types[column] == _NAIVE and self.settings.zone is None:
            raise SourceError(
                f"{self.settings.source_name}.{column} has no time zone:"
                " set ANOMALY_SOURCE_TIMEZONE to the zone it is written in, for example UTC"
            )
        if types[column] not in (_NAIVE, _AWARE):
            raise SourceError(
                f"{self.settings.source_name}.{column} is {types[column]}, not a timestamp:"
                " name another column in ANOMALY_SOURCE_TIMESTAMP_COLUMN"
            )
        return types[column] == _NAIVE

    def _machine_columns(self, types: dict[str, str]) -> dict[str, int]:
        machines = self.settings.source_machines or {
            name: int(match[1]) for name in types if (match := _MACHINE_COLUMN.fullmatch(name))
        }
        if not machines:
            long = self.settings.source_machine_column in types
            raise SourceError(
                f"{self.settings.source_name} has no machine_<n> column:"
                " map its columns in ANOMALY_SOURCE_MACHINES"
                + (", or set ANOMALY_SOURCE_LAYOUT=long for a row a machine" if long else "")
            )
        by_id: dict[int, str] = {}
        for column, machine_id in machines.items():
            self._require_number(types, column)
            if machine_id > LARGEST_ID or machine_id in by_id:
                other = f", as {by_id[machine_id]!r} is" if machine_id in by_id else ""
                raise SourceError(
                    f"{self.settings.source_name}.{column} would be machine {machine_id}{other}:"
                    f" give each an id up to {LARGEST_ID} in ANOMALY_SOURCE_MACHINES"
                )
            by_id[machine_id] = column
        return machines

    def _require(self, types: dict[str, str], column: str, setting: str) -> None:
        if column not in types:
            raise SourceError(
                f"{self.settings.source_name} has no column {column!r}, it has"
                f" {', '.join(types)}: set {setting}"
            )

    def _require_number(self, types: dict[str, str], column: str) -> None:
        setting = (
            "ANOMALY_SOURCE_MACHINES"
            if self.settings.source_layout is Layout.WIDE
            else "ANOMALY_SOURCE_VALUE_COLUMN"
        )
        self._require(types, column, setting)
        if types[column] not in _NUMBER_TYPES:
            raise SourceError(
                f"{self.settings.source_name}.{column} is {types[column]}, not a number:"
                f" name another column in {setting}"
            )

    # Reading ------------------------------------------------------------

    def read(
        self,
        transaction: Transaction,
        shape: "SourceShape",
        window: Window,
        machines: list[int] | None = None,
    ) -> pd.DataFrame:
        """Read every row whose interval may start in `window`, and a little more.

        Parameters
        ----------
        machines : list of int, optional
            Read these only; default all.

        Returns
        -------
        DataFrame
            ``utc_timestamp`` as stored (naive where the column is), ``ingested_at``
            (int64 microseconds since 2000, the minimum where unknown), then a column
            a machine (wide) or ``machine_id`` (`UNREGISTERED` where it is) and ``reading``
            (long). Empty cells are NaN.
        """
        if self.settings.source_layout is Layout.WIDE:
            return self._read_wide(transaction, shape, window, machines)
        return self._read_long(transaction, shape, window, machines)

    def _read_wide(
        self,
        transaction: Transaction,
        shape: "SourceShape",
        window: Window,
        machines: list[int] | None,
    ) -> pd.DataFrame:
        columns = [
            column
            for column, machine_id in shape.machines.items()
            if machines is None or machine_id in machines
        ]
        statement = SQL(sql_file("queries/read_wide.sql")).format(
            **self._bounds(shape, window),
            timestamp=self._timestamp,
            ingested_at=self._ingested_at(shape),
            table=self._table,
            meters=SQL(", ").join(self._number(Identifier(column)) for column in columns),
        )
        dtype = [("utc_timestamp", ">i8"), ("ingested_at", ">i8")]
        records = binary.decode(
            transaction.copy_out(statement), dtype + [(f"m{i}", ">f8") for i in range(len(columns))]
        )
        frame = pd.DataFrame(
            {column: binary.native(records[f"m{i}"]) for i, column in enumerate(columns)}
        )
        return self._with_times(frame, records, shape)

    def _read_long(
        self,
        transaction: Transaction,
        shape: "SourceShape",
        window: Window,
        machines: list[int] | None,
    ) -> pd.DataFrame:
        whole = machines is None and shape.numbered  # a join costs as much as the reading
        query = "read_long_numbered" if whole else "read_long"
        statement = SQL(sql_file(f"queries/{query}.sql")).format(
            **self._bounds(shape, window),
            timestamp=self._timestamp,
            ingested_at=self._ingested_at(shape),
            table=self._table,
            machine=Identifier(self.settings.source_machine_column),
            unregistered=Literal(str(UNREGISTERED)),
            machines=Literal(None if machines is None else int_array(machines)),
            reading=self._number(Identifier("s", self.settings.source_value_column)),
        )
        records = binary.decode(
            transaction.copy_out(statement),
            [
                ("utc_timestamp", ">i8"), ("ingested_at", ">i8"),
                ("machine", ">i8" if whole else ">i4"), ("reading", ">f8"),
            ],
        )  # fmt: skip
        machine_ids = binary.native(records["machine"])
        if whole:
            machine_ids = self._ids_of_numbers(transaction, machine_ids)
        readings = binary.native(records["reading"])
        frame = pd.DataFrame({"machine_id": machine_ids, "reading": readings})
        return self._with_times(frame, records, shape)

    def _ids_of_numbers(
        self, transaction: Transaction, asked: npt.NDArray[np.generic]
    ) -> npt.NDArray[np.int32]:
        """Ids of machines by their numbers in the table; `UNREGISTERED` for unknown ones."""
        data = transaction.copy_out(SQL(sql_file("queries/machine_numbers.sql")))
        known = binary.decode(data, [("number", ">i8"), ("machine_id", ">i4")])
        numbers = np.append(binary.native(known["number"]), np.iinfo(np.int64).max)
        ids = np.append(binary.native(known["machine_id"]), np.int32(UNREGISTERED))
        place = np.searchsorted(numbers, asked)
        return np.where(numbers[place] == asked, ids[place], np.int32(UNREGISTERED))

    def _with_times(
        self, frame: pd.DataFrame, records: npt.NDArray[np.void], shape: "SourceShape"
    ) -> pd.DataFrame:
        stamps = pd.Series(binary.moments(records["utc_timestamp"]))
        frame.insert(0, "utc_timestamp", stamps if shape.naive else stamps.dt.tz_localize("UTC"))
        frame.insert(1, "ingested_at", binary.native(records["ingested_at"]))
        return frame

    def unknown_machines(
        self, transaction: Transaction, shape: "SourceShape", window: Window
    ) -> list[str]:
        """Ids of a long table in `window` that anomaly.machines does not know."""
        statement = SQL(sql_file("queries/source_unknown_machines.sql")).format(
            **self._bounds(shape, window),
            machine=Identifier(self.settings.source_machine_column),
            timestamp=self._timestamp,
            table=self._table,
        )
        return [key for (key,) in transaction.execute(statement)]

    # Asking -------------------------------------------------------------

    def extent(
        self, transaction: Transaction, shape: "SourceShape"
    ) -> tuple[datetime, datetime] | None:
        """First and last interval start in the table, or None when it is empty."""
        statement = SQL(sql_file("queries/source_extent.sql")).format(
            timestamp=self._timestamp, table=self._table
        )
        ((first, last),) = transaction.execute(statement)
        return None if first is None else (self._to_utc(first), self._to_utc(last))

    def next_reading(
        self, transaction: Transaction, shape: "SourceShape", moment: datetime
    ) -> datetime | None:
        """The first interval start at or after `moment`, or None when nothing follows."""
        statement = SQL(sql_file("queries/source_next.sql")).format(
            timestamp=self._timestamp,
            table=self._table,
            start=Literal(self._to_source(shape, moment)),
        )
        ((found,),) = transaction.execute(statement)
        return None if found is None else self._to_utc(found)

    def previous_reading(
        self, transaction: Transaction, shape: "SourceShape", moment: datetime
    ) -> datetime | None:
        """The last interval start before `moment`, or None when nothing precedes it."""
        statement = SQL(sql_file("queries/source_previous.sql")).format(
            timestamp=self._timestamp,
            table=self._table,
            end=Literal(self._to_source(shape, moment)),
        )
        ((found,),) = transaction.execute(statement)
        return None if found is None else self._to_utc(found)

    def ingested_since(
        self, transaction: Transaction, shape: "SourceShape", since: datetime, window: Window
    ) -> list[datetime]:
        """Interval starts in `window` whose rows were written at or after `since`."""
        statement = SQL(sql_file("queries/source_ingested_since.sql")).format(
            timestamp=self._timestamp,
            ingested_at=Identifier(self.settings.source_ingested_at_column),
            table=self._table,
            since=Literal(since),
            start=Literal(self._to_source(shape, window.start)),
            end=Literal(self._to_source(shape, window.end)),
        )
        return [self._to_utc(moment) for (moment,) in transaction.execute(statement)]

    def count_from(self, transaction: Transaction, shape: "SourceShape", moment: datetime) -> int:
        """How many rows have an interval start at or after `moment`."""
        statement = SQL(sql_file("queries/source_future.sql")).format(
            timestamp=self._timestamp,
            table=self._table,
            start=Literal(self._to_source(shape, moment)),
        )
        ((count,),) = transaction.execute(statement)
        return int(count)

    # Times, as the source writes them -----------------------------------

    def _bounds(self, shape: "SourceShape", window: Window) -> dict[str, Composable]:
        # A naive local clock jumps by up to two hours: read that much more, the
        # caller trims to the window once the timestamps are UTC.
        slack = timedelta(hours=3) if shape.naive else timedelta(0)
        return {
            "start": Literal(self._to_source(shape, window.start - slack)),
            "end": Literal(self._to_source(shape, window.end + slack)),
        }

    def _to_source(self, shape: "SourceShape", moment: datetime) -> datetime:
        if self.settings.timestamp_label is TimestampLabel.END:
            moment += self.settings.interval
        if shape.naive and self.settings.zone is not None:
            return moment.astimezone(self.settings.zone).replace(tzinfo=None)
        return moment

    def _to_utc(self, moment: datetime) -> datetime:
        if moment.tzinfo is None and self.settings.zone is not None:
            moment = moment.replace(tzinfo=self.settings.zone, fold=1)
        if self.settings.timestamp_label is TimestampLabel.END:
            moment = moment.astimezone(UTC) - self.settings.interval
        return moment.astimezone(UTC)

    def _ingested_at(self, shape: "SourceShape") -> Composable:
        unknown = SQL("'-infinity'::timestamptz")
        if not shape.has_ingested_at:
            return unknown
        column = Identifier(self.settings.source_ingested_at_column)
        return SQL("coalesce({}::timestamptz, {})").format(column, unknown)

    @staticmethod
    def _number(column: Composable) -> Composable:
        return SQL("coalesce({}::double precision, 'NaN')").format(column)


@dataclass(frozen=True)
class SourceShape:
    """What `MeterSource.describe` found.

    Attributes
    ----------
    naive : bool
        Timestamps are stored without a zone.
    has_ingested_at : bool
        The column that says when a row was written exists.
    machines : dict of str to int
        Wide layout: columns and their machine ids.
    numbered : bool
        Long layout: machines are whole numbers.
    """

    naive: bool
    has_ingested_at: bool
    machines: dict[str, int]
    numbered: bool
