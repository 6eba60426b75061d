"""Load both hours that a local clock shows twice into a long table with local times."""

from typing import Any

import numpy as np
import pandas as pd
from psycopg2 import errors as pg
from psycopg2.sql import SQL, Composable, Identifier, Literal

from anomaly.database.connection import Transaction, composed
from anomaly.database.meter_table import MeterSource, SourceShape, written_now
from anomaly.errors import IngestError
from anomaly.readings import local_clocks
from anomaly.settings import MeterSettings, MeterTableSettings


class DoubledHours:
    """Rows of one load whose local time can mean two moments.

    Parameters
    ----------
    loading : str
        What is being loaded, for errors.
    """

    def __init__(
        self,
        transaction: Transaction,
        meter_table: MeterTableSettings,
        meter: MeterSettings,
        shape: SourceShape,
        loading: str,
    ) -> None:
        self._transaction = transaction
        self._meter_table = meter_table
        self._meter = meter
        self._source = MeterSource(meter_table, meter)
        self._shape = shape
        self._loading = loading
        self._waiting: list[pd.DataFrame] = []

    def hold_back(self, stored: pd.DataFrame, moments: "pd.Series[pd.Timestamp]") -> pd.DataFrame:
        """Keep the rows of doubled times until `merge`, and return the other rows.

        Parameters
        ----------
        stored : DataFrame
            Local time, machine and value as the table stores them, indexed by line.
        moments : Series
            The times in UTC.
        """
        assert self._meter.zone is not None
        stamps = stored[self._meter_table.source_timestamp_column].to_numpy()
        doubled = local_clocks.is_doubled(local_clocks.as_local(stamps), self._meter.zone)
        if doubled.any():
            rows = stored[doubled].set_axis(["local", "machine", "value"], axis="columns")
            machine = rows["machine"].astype(str)
            self._waiting.append(rows.assign(machine=machine, moment=moments[doubled]))
        return stored[~doubled]

    def merge(self) -> tuple[int, int, int]:
        """Write the rows so that scoring reads each at its moment.

        Each row is compared with the stored row that scoring reads at the same moment. If the
        table already holds the values of the file, nothing is written.

        Returns
        -------
        tuple of int
            Rows, inserted and updated.

        Raises
        ------
        IngestError
            When two lines contradict each other, when a unique key of the table has room for
            only one of the two hours, or when only the first hour is loaded and would be read
            as the second. Nothing is loaded then.
        """
        if not self._waiting:
            return 0, 0, 0
        staged = pd.concat(self._waiting)
        value = staged["value"].astype(float)
        staged = staged.assign(value=value)
        staged = staged[~staged[["machine", "moment", "value"]].duplicated()]
        self._refuse_contradictions(staged)
        there = self._stored_rows(staged)
        inserted = updated = 0
        for (local, machine), rows in staged.groupby(["local", "machine"]):
            mine = there[(there["local"] == local) & (there["machine"] == machine)]
            if sorted(map(_sort_key, mine["value"])) == sorted(map(_sort_key, rows["value"])):
                continue
            for line, row in rows.iterrows():
                same = mine[mine["moment"] == row["moment"]]
                if same.empty:
                    self._insert(line, row, alone=len(rows) + len(mine) == 1)
                    inserted += 1
                elif _sort_key(same["value"].iloc[0]) != _sort_key(row["value"]):
                    self._run_for_row("update", row, place=Literal(same["place"].iloc[0]))
                    updated += 1
        return len(staged), inserted, updated

    def _stored_rows(self, staged: pd.DataFrame) -> pd.DataFrame:
        """Stored rows at the staged times, each with the moment at which scoring reads it."""
        rows = self._transaction.execute(
            self._statement(
                "rows_at",
                stamps=Literal([stamp.to_pydatetime() for stamp in staged["local"].unique()]),
                machines=Literal(staged["machine"].unique().tolist()),
            )
        )
        columns = ["place", "local", "machine", "value", "written"]
        found = pd.DataFrame(rows, columns=columns)
        local = local_clocks.as_local(found["local"].to_numpy())
        written = found["written"].to_numpy(dtype=np.int64)
        labels = self._source.labels(self._shape, local, written, found[["machine", "value"]])
        moment = pd.Series(labels, index=found.index, dtype="datetime64[us]").dt.tz_localize("UTC")
        return found.assign(local=local, moment=moment)

    def _insert(self, line: Any, row: "pd.Series[Any]", *, alone: bool) -> None:
        second = self._second_showing(row)
        if alone and row["moment"] < second:
            self._refuse_unless_proven(line, row, second)
        try:
            self._run_for_row("insert", row)
        except pg.UniqueViolation:
            raise IngestError(
                f"{self._loading}, line {line}: {self._clock_phrase(row)}, and a unique key of"
                f" {self._meter_table.source_name} has room for only one: drop the key, or make the"
                " column a timestamp with time zone; nothing was loaded"
            ) from None

    def _refuse_unless_proven(self, line: Any, row: "pd.Series[Any]", second: pd.Timestamp) -> None:
        """Refuse a row of the first hour that would be read as the second.

        A first hour without a second is recognised only by the time at which it was written: at
        least a third of an interval before the second showing.
        """
        soon = second - self._meter.interval / 3
        written_at = self._transaction.value("doubled_hours/written_at")
        if not self._shape.has_ingested_at or written_at >= soon:
            raise IngestError(
                f"{self._loading}, line {line}: {self._clock_phrase(row)}, and without the second"
                " reading the first would be read as the second: load both, or make the column a"
                " timestamp with time zone; nothing was loaded"
            )

    def _second_showing(self, row: "pd.Series[Any]") -> pd.Timestamp:
        """The later of the two moments at which the clocks showed the row's time."""
        assert self._meter.zone is not None
        usual = local_clocks.usual_utc(local_clocks.as_local([row["local"]]), self._meter.zone)
        return pd.Timestamp(usual[0], tz="UTC")

    def _clock_phrase(self, row: "pd.Series[Any]") -> str:
        zone = self._meter.source_timezone
        return (
            f"{row['moment']:%Y-%m-%d %H:%M} UTC is {row['local']:%H:%M} in {zone}, which its"
            " clocks show twice"
        )

    def _refuse_contradictions(self, staged: pd.DataFrame) -> None:
        again = staged[["machine", "moment"]].duplicated(keep=False).to_numpy()
        if again.any():
            row = staged[again].iloc[0]
            same = (staged["machine"] == row["machine"]) & (staged["moment"] == row["moment"])
            first, second = staged.index[same][:2]
            raise IngestError(
                f"{self._loading}, lines {first} and {second} have the same machine and time"
                f" ({row['moment']}): keep the right one"
            )

    def _run_for_row(self, query: str, row: "pd.Series[Any]", **parts: Composable) -> None:
        reading = None if pd.isna(row["value"]) else float(row["value"])
        # The first hour's row gets a write time one microsecond earlier. If nothing else tells
        # the two rows apart, the row that was written earlier is the first hour's.
        late = row["moment"] == self._second_showing(row)
        written: dict[str, Composable] = {}
        if self._shape.has_ingested_at:
            earlier = SQL("{}" if late else "{} - interval '1 microsecond'")
            moment = earlier.format(written_now(self._shape, self._meter))
            written[self._meter_table.source_ingested_at_column] = moment
        values = {
            self._meter_table.source_timestamp_column: Literal(row["local"].to_pydatetime()),
            self._meter_table.source_machine_column: Literal(row["machine"]),
            self._meter_table.source_value_column: Literal(reading),
        } | written
        columns = [Identifier(name) for name in values]
        changed = {self._meter_table.source_value_column: Literal(reading)} | written
        self._transaction.execute(
            self._statement(
                query,
                columns=SQL(", ").join(columns),
                values=SQL(", ").join(values.values()),
                assignments=SQL(", ").join(
                    SQL("{} = {}").format(Identifier(name), new) for name, new in changed.items()
                ),
                **parts,
            )
        )

    def _statement(self, query: str, **parts: Composable) -> Composable:
        return composed(
            f"doubled_hours/{query}",
            table=Identifier(self._meter_table.source_schema, self._meter_table.source_table),
            timestamp=Identifier(self._meter_table.source_timestamp_column),
            machine=Identifier(self._meter_table.source_machine_column),
            value=Identifier(self._meter_table.source_value_column),
            written=self._source.written_microseconds(self._shape),
            **parts,
        )


def _sort_key(value: float | None) -> float:
    """A reading as a sort key; a missing reading comes first."""
    return -np.inf if value is None or pd.isna(value) else float(value)
