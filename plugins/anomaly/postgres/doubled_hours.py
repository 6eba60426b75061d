"""Load the hour that a local clock shows twice into a long table of local times: both hours."""

from typing import Any

import numpy as np
import pandas as pd
from psycopg2 import errors as pg
from psycopg2.sql import SQL, Composable, Identifier, Literal

from anomaly import clocks
from anomaly.errors import IngestError
from anomaly.postgres.database import Transaction, sql_file
from anomaly.postgres.source import MeterSource, SourceShape, written_now
from anomaly.settings import Settings


class DoubledHours:
    """Rows of one load whose local time means two moments.

    Parameters
    ----------
    loading : str
        What is being loaded, for errors.
    """

    def __init__(
        self, transaction: Transaction, settings: Settings, shape: SourceShape, loading: str
    ) -> None:
        self._transaction = transaction
        self._settings = settings
        self._source = MeterSource(settings)
        self._shape = shape
        self._loading = loading
        self._waiting: list[pd.DataFrame] = []

    def held_back(self, stored: pd.DataFrame, moments: "pd.Series[pd.Timestamp]") -> pd.DataFrame:
        """Keep rows of such times until `merge`, and give the others.

        Parameters
        ----------
        stored : DataFrame
            As the table has them, indexed by line: local time, machine, value.
        moments : Series
            What the times are in UTC.
        """
        assert self._settings.zone is not None
        stamps = stored[self._settings.source_timestamp_column].to_numpy()
        doubled = clocks.is_doubled(clocks.as_local(stamps), self._settings.zone)
        if doubled.any():
            rows = stored[doubled].set_axis(["local", "machine", "value"], axis="columns")
            machine = rows["machine"].astype(str)
            self._waiting.append(rows.assign(machine=machine, moment=moments[doubled]))
        return stored[~doubled]

    def merge(self) -> tuple[int, int, int]:
        """Write each row where scoring will find it; return rows, inserted and updated.

        A row is compared with the one that scoring takes for the same moment. Where the
        table holds the values of the file already, nothing is written.

        Raises
        ------
        IngestError
            When two lines contradict each other, when a key of the table allows one of the
            two hours only, or when the first hour comes alone and would be taken for the
            second. Nothing is loaded then.
        """
        if not self._waiting:
            return 0, 0, 0
        staged = pd.concat(self._waiting)
        value = staged["value"].astype(float)
        staged = staged.assign(value=value)
        staged = staged[~staged[["machine", "moment", "value"]].duplicated()]
        self._refuse_contradictions(staged)
        there = self._there(staged)
        inserted = updated = 0
        for (local, machine), rows in staged.groupby(["local", "machine"]):
            mine = there[(there["local"] == local) & (there["machine"] == machine)]
            if sorted(map(_key, mine["value"])) == sorted(map(_key, rows["value"])):
                continue
            for line, row in rows.iterrows():
                same = mine[mine["moment"] == row["moment"]]
                if same.empty:
                    self._insert(line, row, alone=len(rows) + len(mine) == 1)
                    inserted += 1
                elif _key(same["value"].iloc[0]) != _key(row["value"]):
                    self._run("ingest_update_hour", row, place=Literal(same["place"].iloc[0]))
                    updated += 1
        return len(staged), inserted, updated

    def _there(self, staged: pd.DataFrame) -> pd.DataFrame:
        """Rows of the table at the staged times, each at the moment that scoring reads."""
        rows = self._transaction.execute(
            self._statement(
                "ingest_hours",
                stamps=Literal([stamp.to_pydatetime() for stamp in staged["local"].unique()]),
                machines=Literal(staged["machine"].unique().tolist()),
            )
        )
        columns = ["place", "local", "machine", "value", "written"]
        found = pd.DataFrame(rows, columns=columns)
        local = clocks.as_local(found["local"].to_numpy())
        written = found["written"].to_numpy(dtype=np.int64)
        labels = self._source.labels(self._shape, local, written, found[["machine", "value"]])
        moment = pd.Series(labels, index=found.index, dtype="datetime64[us]").dt.tz_localize("UTC")
        return found.assign(local=local, moment=moment)

    def _insert(self, line: Any, row: "pd.Series[Any]", *, alone: bool) -> None:
        second = self._second(row)
        if alone and row["moment"] < second:
            self._refuse_unless_proven(line, row, second)
        try:
            self._run("ingest_insert_hour", row)
        except pg.UniqueViolation:
            raise IngestError(
                f"{self._loading}, line {line}: {self._shown(row)}, and a unique key of"
                f" {self._settings.source_name} leaves room for one: drop the key, or make the"
                " column a timestamp with time zone; nothing was loaded"
            ) from None

    def _refuse_unless_proven(self, line: Any, row: "pd.Series[Any]", second: pd.Timestamp) -> None:
        """The first hour alone is known by when it was written, or not at all."""
        soon = second - self._settings.interval / 3
        if not self._shape.has_ingested_at or pd.Timestamp.now("UTC") >= soon:
            raise IngestError(
                f"{self._loading}, line {line}: {self._shown(row)}, and without the second"
                " reading the first would be taken for it: load both, or make the column a"
                " timestamp with time zone; nothing was loaded"
            )

    def _second(self, row: "pd.Series[Any]") -> pd.Timestamp:
        """The later of the two moments at which the clocks showed the row's time."""
        assert self._settings.zone is not None
        usual = clocks.usual_utc(clocks.as_local([row["local"]]), self._settings.zone)
        return pd.Timestamp(usual[0], tz="UTC")

    def _shown(self, row: "pd.Series[Any]") -> str:
        zone = self._settings.source_timezone
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

    def _run(self, query: str, row: "pd.Series[Any]", **parts: Composable) -> None:
        reading = None if pd.isna(row["value"]) else float(row["value"])
        # A microsecond tells the hours apart where nothing else does.
        late = row["moment"] == self._second(row)
        written: dict[str, Composable] = {}
        if self._shape.has_ingested_at:
            earlier = SQL("{}" if late else "{} - interval '1 microsecond'")
            moment = earlier.format(written_now(self._shape, self._settings))
            written[self._settings.source_ingested_at_column] = moment
        values = {
            self._settings.source_timestamp_column: Literal(row["local"].to_pydatetime()),
            self._settings.source_machine_column: Literal(row["machine"]),
            self._settings.source_value_column: Literal(reading),
        } | written
        columns = [Identifier(name) for name in values]
        changed = {self._settings.source_value_column: Literal(reading)} | written
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
        settings = self._settings
        return SQL(sql_file(f"queries/{query}.sql")).format(
            table=Identifier(settings.source_schema, settings.source_table),
            timestamp=Identifier(settings.source_timestamp_column),
            machine=Identifier(settings.source_machine_column),
            value=Identifier(settings.source_value_column),
            written=self._source.written_microseconds(self._shape),
            **parts,
        )


def _key(value: float | None) -> float:
    """A reading to compare by; none is below all."""
    return -np.inf if value is None or pd.isna(value) else float(value)
