"""A file's readings, whatever its format: in parts of flat size, checked while they are read."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from anomaly.arrays import Bools, Floats, Ints
from anomaly.database.meter_table_loading import Repeat, Staged
from anomaly.errors import IngestError
from anomaly.loading.columns import OPSD_SITE, quoted
from anomaly.loading.kinds import Courses, unit_in
from anomaly.loading.local_times import DoubledHours, LocalTimes
from anomaly.loading.number_parsing import fault, parse_numbers
from anomaly.loading.opened_file import OpenedFile
from anomaly.loading.opening import FileSource
from anomaly.loading.options import FileOptions
from anomaly.loading.problems import Problem, Problems
from anomaly.loading.taken_for import TakenFor
from anomaly.loading.text_files import Block
from anomaly.loading.time_parsing import Order, Stamps, parse_times
from anomaly.settings import (
    Layout,
    MeterSettings,
    MeterTableSettings,
    ReadingKind,
)


@dataclass(frozen=True)
class Part:
    """Some readings of a file.

    Attributes
    ----------
    frame : DataFrame
        Indexed by line: the timestamp (``datetime64[us, UTC]``), then readings by column, or
        machine and reading.
    plain : dict of str to pyarrow.Array
        Readings as the file writes them, by column; a column that is missing here is to be taken
        from the frame.
    """

    frame: pd.DataFrame
    plain: dict[str, pa.Array] = field(default_factory=dict)


class FileReadings:
    """The readings of one file, and what they were taken for.

    Attributes
    ----------
    file : str
        Its name.
    staged : Staged
        The shape in which the parts go to the meter table.
    courses : Courses
        How the readings read so far rise and fall.
    skipped_rows : int
        Empty rows at a local time that the clock skips.
    """

    def __init__(
        self,
        source: FileSource,
        meter_table: MeterTableSettings,
        meter: MeterSettings,
        options: FileOptions,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.file = source.name
        self._source = source
        self._opened = opened = OpenedFile(source, meter_table, meter, options)
        self._header, self._plan, self._meter = opened.header, opened.plan, opened.meter
        self._table, self._table_meter = meter_table, meter
        self._rejects, self._progress = options.rejects, progress
        self.staged = self._staged()
        self.start_again()

    def start_again(self) -> None:
        """Forget what has been read, to read the file once more."""
        self._problems = Problems(self.file, self._header, self._rejects)
        self._problems.taken_for = self._opened.odd_format
        self.courses = Courses(self._meter.interval_minutes)
        self.skipped_rows = 0
        self._first: datetime | None = None
        self._last: datetime | None = None
        self._zoned: tuple[int, bool] | None = None
        self._local = LocalTimes(self._meter)
        self._doubled = DoubledHours(self._meter)
        self._held_back = 0
        self._strangers: set[str] = set()
        self._rows = 0

    def _staged(self) -> Staged:
        stamp = self._table.source_timestamp_column
        if self._plan.layout is Layout.WIDE and self._table.source_layout is Layout.WIDE:
            return Staged([stamp], [stamp, *self._plan.places])
        if self._table.source_layout is Layout.WIDE:
            return Staged([stamp, "machine"], [stamp, "machine", "reading"], pivoted=True)
        names = (self._table.source_machine_column, self._table.source_value_column)
        return Staged([stamp, names[0]], [stamp, *names])

    # Reading ------------------------------------------------------------

    def parts(self) -> Iterator[Part]:
        """Yield the readings.

        Lines with a local time that the clock shows twice come last: their order in the whole
        file shows which line is the first hour's and which the second's.

        Raises
        ------
        IngestError
            At the end, with all lines that cannot be read, when there was no reading, or the
            readings look like another kind.
        """
        with ExitStack() as stack:
            stack.callback(self._problems.close)
            for block in self._opened.blocks(self._plan.wanted, self._problems):
                self._rows += len(block.lines)
                if self._progress:
                    self._progress(self._source.read, self._source.size)
                part = self._part(block)
                if not part.frame.empty:
                    yield self._followed(part)
            late, unsure = self._doubled.with_moments(self._keys)
            self._note_unsure(unsure)
            if not late.empty:
                self._held_back = len(late)
                yield self._followed(Part(self._as_staged(late)))
            self._problems.raise_any()
        if self._first is None:
            raise IngestError(f"{self.file} {self._message_without_readings()}")
        wrong = self._wrong_interval()
        if not self._opened.kind_said:  # who says the kind knows it
            wrong = self.courses.fault(self._meter, self._opened.unit_said) or wrong
        if wrong:
            raise IngestError(f"{self.file}: {', '.join(wrong)}{self._opened.odd_format}")

    def _wrong_interval(self) -> tuple[str, str] | None:
        """What is said where energy per interval comes in other intervals than the settings say."""
        if self._meter.reading_kind is not ReadingKind.ENERGY_KWH_PER_INTERVAL:
            return None
        found = self.courses.other_interval()
        if found is None:
            return None
        machine, minutes, is_everywhere = found
        advice = f"set ANOMALY_INTERVAL_MINUTES={minutes:g}"
        if not is_everywhere:
            advice = "load machines of different intervals into tables of their own"
        return (
            f"{machine} has a reading every {minutes:g} min, and as energy of"
            f" {self._meter.interval_minutes} min their power would be wrong",
            advice,
        )

    @property
    def _keys(self) -> list[str]:
        stamp = self._table.source_timestamp_column
        return [stamp] if self._plan.layout is Layout.WIDE else [stamp, self._long_names[0]]

    @property
    def _long_names(self) -> tuple[str, str]:
        if self._table.source_layout is Layout.WIDE:
            return "machine", "reading"
        return self._table.source_machine_column, self._table.source_value_column

    def _part(self, block: Block) -> Part:
        """Read a block's cells; note what cannot be read."""
        utc, good, texts = self._moments(block)
        columns: dict[str, Any] = {self._table.source_timestamp_column: utc}
        plain: dict[str, pa.Array] = {}
        filled = np.zeros(len(utc), dtype=bool)
        if self._plan.layout is Layout.LONG:
            assert self._plan.machine is not None
            assert self._plan.value is not None
            names = self._long_names
            columns[names[0]], named = self._machines(block, good)
            self._note_units(block, good)
            numbers = {names[1]: self._plan.value}
            good &= named
        else:
            numbers = {n: p for n, p in self._plan.places.items() if n not in self._plan.texts}
        for name, place in numbers.items():
            plain[name], columns[name], bad = self._numbers(block, place, good)
            filled |= ~np.isnan(columns[name])
            good &= ~bad
        for name in self._plan.texts:
            trimmed = pc.utf8_trim_whitespace(block.columns[self._plan.places[name]])
            columns[name] = _objects(pc.if_else(pc.equal(trimmed, ""), None, trimmed))
        if self._plan.layout is Layout.WIDE:
            columns = {name: columns[name] for name in (self._keys[0], *self._plan.places)}
        good &= self._is_kept(block, utc, filled, good, texts)
        stamps = pd.DatetimeIndex(columns[self._keys[0]]).tz_localize("UTC")
        frame = pd.DataFrame(
            {**columns, self._keys[0]: stamps}, index=pd.Index(block.lines, name="line"), copy=False
        )
        if self._zoned is not None and self._zoned[1] and self._meter.zone is not None:
            kept = frame[good] if not good.all() else frame
            held = np.zeros(len(good), dtype=bool)
            held[good] = self._doubled.hold_back(kept, self._keys)
            good &= ~held
        if not good.all():
            mask = pa.array(good)
            frame = frame[good]
            plain = {name: array.filter(mask) for name, array in plain.items()}
        return Part(self._as_staged(frame), plain if self._keeps_plain else {})

    @property
    def _keeps_plain(self) -> bool:
        is_melted = self._plan.layout is Layout.WIDE and self._table.source_layout is Layout.LONG
        return self._opened.factor == 1 and not is_melted

    def _is_kept(
        self, block: Block, utc: Stamps, filled: Bools, good: Bools, texts: pa.Array
    ) -> Bools:
        """Which rows are kept: not empty ones at a time that the clock skips."""
        skipped = np.isnat(utc) & good
        edge = np.zeros(len(utc), dtype=bool)
        if self._zoned is not None and self._zoned[1]:
            edge = self._local.are_ends_as_set_forward(utc) & ~skipped
        wrong = np.flatnonzero(skipped & filled)
        for place in wrong[: self._most(len(wrong))].tolist():
            text = texts[place].as_py()
            local = parse_times(texts.slice(place, 1), self._opened.order)[0][0]
            self._note(block, place, self._time_name, *self._local.fault_of_skipped(local, text))
        self._problems.add_many(len(wrong) - self._most(len(wrong)))
        gone = (skipped | edge) & ~filled
        self.skipped_rows += int((gone & good).sum())
        if self._plan.skips_empty:
            gone |= ~filled
        return ~gone & ~skipped

    def _moments(self, block: Block) -> tuple[Stamps, Bools, pa.Array]:
        """Moments in UTC (NaT: skipped by the clock), which rows can be read, and their texts."""
        texts = self._time_texts(block)
        stamps, aware, empty = parse_times(texts, self._opened.order)
        good = ~np.isnat(stamps)
        blank = empty & self._is_blank(block)
        self._note_times(block, texts, np.flatnonzero(~good & ~blank), empty)
        self._note_zones(block, texts, good, aware)
        local = good & ~aware
        if local.any():
            stamps = stamps.copy()
            stamps[local] = self._local.utc(stamps[local])
        return stamps + self._shift_for(local), good, texts

    def _shift_for(self, local: Bools) -> Any:
        """The change of label; of local times it waits until doubled hours are told apart."""
        return np.where(local, np.timedelta64(0, "m"), self._opened.shift)

    def _time_texts(self, block: Block) -> pa.Array:
        date, *clock = (block.columns[place] for place in self._plan.time)
        if not clock:
            return date
        texts = date if pa.types.is_string(date.type) else date.cast(pa.string())
        # A workbook writes a date as midnight.
        texts = pc.replace_substring_regex(texts, r"[ T]00:00:00(\.0+)?$", "")
        times = clock[0] if pa.types.is_string(clock[0].type) else clock[0].cast(pa.string())
        times = pc.replace_substring_regex(times, r"\s*(?:-|to|bis|\x{2013})\s*\d.*$", "")
        return pc.binary_join_element_wise(pc.fill_null(texts, ""), pc.fill_null(times, ""), " ")

    def _is_blank(self, block: Block) -> Bools:
        """Rows without any cell, such as those below the last row of a spreadsheet."""
        blank = np.ones(len(block.lines), dtype=bool)
        for place in self._plan.wanted:
            column = block.columns[place]
            if pa.types.is_string(column.type):
                column = pc.if_else(pc.equal(pc.utf8_trim_whitespace(column), ""), None, column)
            blank &= column.is_null(nan_is_null=True).to_numpy(zero_copy_only=False)
        return blank

    def _note_times(self, block: Block, texts: pa.Array, places: Any, empty: Bools) -> None:
        advice = {
            Order.YEAR_FIRST: "write ISO 8601, for example 2017-03-07T04:45:00Z",
            Order.DAY_FIRST: "write all times the same way, for example 31.12.2017 04:45",
            Order.MONTH_FIRST: "write all times the same way, for example 12/31/2017 04:45",
        }.get(self._opened.order, "write all times the same way")
        for place in places[: self._most(len(places))].tolist():
            if empty[place]:
                said = "empty, and every row needs a timestamp", "write it, or remove the row"
            else:
                said = f"{texts[place].as_py()!r} is not a time", advice
            self._note(block, place, self._time_name, *said)
        self._problems.add_many(len(places) - self._most(len(places)))

    def _note_zones(self, block: Block, texts: pa.Array, good: Bools, aware: Bools) -> None:
        """Times must all have a zone, or none has one and it is said which is meant."""
        readable = np.flatnonzero(good)
        if not len(readable):
            return
        if self._zoned is None:
            self._zoned = int(block.lines[readable[0]]), not bool(aware[readable[0]])
        first_line, naive = self._zoned
        if naive and self._meter.zone is None:
            text = texts[int(readable[0])].as_py()
            self._note(
                block,
                int(readable[0]),
                self._time_name,
                f"{text!r} has no time zone",
                "say --timezone UTC if it is UTC, else the zone it is written in, for example"
                " --timezone Europe/Berlin (or set ANOMALY_SOURCE_TIMEZONE)",
            )
            self._problems.raise_any()
        mixed = np.flatnonzero(good & (aware == naive))
        has, had = ("a", "none") if naive else ("no", "one")
        for place in mixed[: self._most(len(mixed))].tolist():
            self._note(
                block,
                place,
                self._time_name,
                f"{texts[place].as_py()!r} has {has} time zone and line {first_line} has {had}",
                "write all timestamps the same way",
            )
        self._problems.add_many(len(mixed) - self._most(len(mixed)))
        good[mixed] = False

    def _note_unsure(self, unsure: dict[int, datetime]) -> None:
        """Note rows in an hour that clocks show twice, of which nothing tells which is meant."""
        for line, moment in unsure.items():
            self._problems.add(
                line,
                Problem(
                    f"{self._opened.word} {line}, column {self._time_name}",
                    f"clocks in {self._meter.source_timezone} show {moment:%Y-%m-%d %H:%M} twice,"
                    " and the file has it once, where it has other times of that hour twice, side"
                    " by side",
                    "write these times with their offset from UTC, or remove the row",
                ),
            )

    def _machines(self, block: Block, good: Bools) -> tuple[Any, Bools]:
        assert self._plan.machine is not None
        column = block.columns[self._plan.machine]
        if pa.types.is_floating(column.type):  # pandas keeps whole numbers with gaps as doubles
            column = column.cast(pa.int64(), safe=False)
        if not pa.types.is_string(column.type):
            column = column.cast(pa.string())
        names = pc.fill_null(pc.utf8_trim_whitespace(column), "")
        named = pc.not_equal(names, "").to_numpy(zero_copy_only=False)
        self._note_all(
            block,
            np.flatnonzero(good & ~named),
            self._header[self._plan.machine],
            lambda _: ("empty, and every row needs a machine", "write it, or remove the row"),
        )
        if self.staged.pivoted:
            columns, known = self._columns_of_machines(names)
            self._note_strangers(block, names, np.flatnonzero(good & named & ~known))
            return _objects(columns), named & known
        return _objects(names), named

    def _note_units(self, block: Block, good: Bools) -> None:
        """Note rows in another unit than the file's."""
        if self._plan.unit is None:
            return
        column = block.columns[self._plan.unit]
        cells = pc.fill_null(pc.utf8_trim_whitespace(column.cast(pa.string())), "")
        coded = cells.dictionary_encode()
        meant = [unit_in(f"[{cell}]") or cell for cell in coded.dictionary.to_pylist()]
        other = np.array([unit not in ("", self._opened.unit_said) for unit in meant], dtype=bool)
        wrong = np.flatnonzero(good & other[coded.indices.to_numpy()])
        self._note_all(
            block,
            wrong,
            self._header[self._plan.unit],
            lambda row: (
                f"{cells[row].as_py()!r} is another unit than that of the rows above,"
                f" {self._opened.unit_said}",
                "load the rows of one unit at a time",
            ),
        )
        good[wrong] = False

    def _note_strangers(self, block: Block, names: pa.Array, places: Ints) -> None:
        """Note machines that the wide table does not have, each once."""
        assert self._plan.machine is not None
        for name, place in zip(*np.unique(_objects(names)[places], return_index=True), strict=True):
            if name in self._strangers and not self._problems.wants_all:
                continue
            self._strangers.add(name)
            self._note(
                block,
                int(places[place]),
                self._header[self._plan.machine],
                f"{name!r} is no machine of {self._table.source_name}",
                f"say which it is, for example --columns {quoted(f'{name}=machine_1')}, or load the"
                " file into a long table (ANOMALY_SOURCE_LAYOUT=long)",
            )

    def _columns_of_machines(self, names: pa.Array) -> tuple[pa.Array, Bools]:
        """The wide table's columns of some machines, and which have one."""
        coded, said = names.dictionary_encode(), self._plan.machine_names
        columns = [
            said.get(name) or _column_of(name, self._table) for name in coded.dictionary.to_pylist()
        ]
        known = np.array([column is not None for column in columns], dtype=bool)
        shown = pa.array([column or "" for column in columns], pa.string())
        return shown.take(coded.indices), known[coded.indices.to_numpy()]

    def _numbers(self, block: Block, place: int, good: Bools) -> tuple[pa.Array, Floats, Bools]:
        plain, values, bad = parse_numbers(block.columns[place], self._opened.decimal)
        if bad.any():
            self._note_all(
                block,
                np.flatnonzero(bad & good),
                self._header[place],
                lambda row: fault(
                    str(block.columns[place][row].as_py()).strip(), self._opened.decimal
                ),
            )
        if self._opened.factor != 1:
            values = values * self._opened.factor.numerator / self._opened.factor.denominator
        return plain, values, bad

    # Notes --------------------------------------------------------------

    @property
    def _time_name(self) -> str:
        return " and ".join(self._header[place] for place in self._plan.time)

    def _most(self, count: int) -> int:
        """How many of so many problems are told one by one; the others are counted."""
        return count if self._problems.wants_all else min(count, 20)

    def _note_all(
        self,
        block: Block,
        places: Any,
        column: str,
        said: Callable[[int], tuple[str, str]],
    ) -> None:
        for place in places[: self._most(len(places))].tolist():
            self._note(block, place, column, *said(place))
        self._problems.add_many(len(places) - self._most(len(places)))

    def _note(self, block: Block, place: int, column: str, what: str, advice: str) -> None:
        line = int(block.lines[place])
        cells = block.row(place) if self._problems.wants_all else ()
        word = self._opened.word
        self._problems.add(line, Problem(f"{word} {line}, column {column}", what, advice), cells)

    # Shapes -------------------------------------------------------------

    def _as_staged(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The readings in the shape of the table."""
        keys = self._keys
        if self._opened.shift and self._zoned is not None and self._zoned[1]:
            frame = frame.assign(**{keys[0]: frame[keys[0]] + pd.Timedelta(self._opened.shift)})
        if self._table.source_layout is Layout.LONG and self._plan.layout is Layout.WIDE:
            names = self._long_names
            long = frame.melt(keys, var_name=names[0], value_name=names[1], ignore_index=False)
            return long.dropna(subset=names[1])
        return frame

    def as_long(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Readings of machines: ``utc_timestamp``, ``machine`` and ``reading``, by line."""
        names = ["utc_timestamp", "machine", "reading"]
        if len(self.staged.keys) > 1:
            return frame.set_axis(names, axis="columns")
        wide = frame[[*self.staged.keys, *self._plan.machines]]
        wide = wide.rename(columns={self.staged.keys[0]: names[0]})
        return wide.melt(names[0], var_name=names[1], value_name=names[2], ignore_index=False)

    def _followed(self, part: Part) -> Part:
        frame = part.frame
        ticks = frame[self.staged.keys[0]].to_numpy("datetime64[us]").astype(np.int64)
        lines = frame.index.to_numpy()
        first, last = (datetime.fromisoformat(f"{np.datetime64(int(tick), 'us')}+00:00")
                       for tick in (ticks.min(), ticks.max()))  # fmt: skip
        self._first, self._last = min(self._first or first, first), max(self._last or last, last)
        if len(self.staged.keys) > 1:
            codes, names = pd.factorize(frame[self.staged.keys[1]])
            machine = self.courses.numbers([str(name) for name in names])[codes]
            values = frame.iloc[:, -1].to_numpy(float)
            self.courses.follow(machine, ticks, values, lines)
            return part
        machines = self._plan.machines
        numbers = self.courses.numbers(machines)
        values = frame[machines].to_numpy(float).T.ravel()
        count = len(machines)
        self.courses.follow(
            np.repeat(numbers, len(ticks)), np.tile(ticks, count), values, np.tile(lines, count)
        )
        return part

    # What is told -------------------------------------------------------

    def repeated(self, repeats: Sequence[Repeat], count: int) -> IngestError:
        """Make the error for lines with the same moment (and machine).

        Parameters
        ----------
        count : int
            How many pairs there are, of which only some are in `repeats`.
        """
        word, keys = f"{self._opened.word}s", " and ".join(self.staged.keys)
        lines = [
            f"{word} {one.first} and {one.second} have the same {keys} ({one.moment})"
            for one in repeats
        ]
        if count == 1:
            return IngestError(f"{self.file}, {lines[0]}: keep the right one")
        more = [f"and {count - len(repeats)} more"] if count > len(repeats) else []
        told = [f"  {line}" for line in (*lines, *more)]
        return IngestError(f"{self.file} has {count} readings twice:", *told, "keep the right ones")

    def _message_without_readings(self) -> str:
        if self._rows and self._plan.skips_empty:
            return f"has no reading in any column {OPSD_SITE}*: take another part of it"
        return "holds a header and no rows: export it again"

    def taken_for(self) -> TakenFor:
        """What the file was taken for, once it has been read."""
        assert self._first is not None
        assert self._last is not None
        meter, table = self._meter, self._table_meter
        naive = self._zoned is not None and self._zoned[1]
        is_long = self._plan.layout is Layout.LONG
        changes = []
        if meter.reading_kind is not table.reading_kind or meter.unit != table.unit:
            changes.append(f"loaded as {table.reading_kind.value} in {table.unit}")
        if self._opened.shift:
            changes.append(f"times loaded as the {table.timestamp_label.value} of intervals")
        return TakenFor(
            file=self.file,
            format=self._opened.format,
            layout="one row per reading" if is_long else "one column per machine",
            columns=self._columns_in_words(),
            decimal=self._opened.decimal.value if self._opened.is_text else "",
            times=self._opened.order.describe(),
            zone=f"in {meter.source_timezone}" if naive else "with their zone",
            doubled_hour=self._doubled_in_words() if naive else "",
            label=meter.timestamp_label.value,
            kind=meter.reading_kind.value,
            unit=meter.unit,
            evidence=self.courses.describe(),
            converted="; ".join(changes),
            machines=_as_ids([*self.courses.machines]) if is_long else [*self._plan.machines],
            interval_minutes=self.courses.interval_minutes(),
            expected_minutes=table.interval_minutes,
            first=self._first,
            last=self._last,
            missing=self.courses.missing(),
            readings=self.courses.readings,
            ignored_columns=self._plan.ignored,
        )

    def _doubled_in_words(self) -> str:
        if not self._held_back:
            return ""
        return (
            f"{self._held_back} rows in hours that clocks show twice, told apart by their order in"
            " the file"
        )

    def _columns_in_words(self) -> str:
        names = " and ".join(repr(self._header[place]) for place in self._plan.time)
        time = f"{names} {'are' if len(self._plan.time) > 1 else 'is'} the time"
        if self._plan.layout is Layout.LONG:
            assert self._plan.machine is not None
            assert self._plan.value is not None
            machine, value = self._header[self._plan.machine], self._header[self._plan.value]
            return f"{time}, {machine!r} the machine, {value!r} the reading"
        renamed = [
            f"{self._header[place]!r} is {name}"
            for name, place in self._plan.places.items()
            if self._header[place].removeprefix(OPSD_SITE) != name
        ]
        return ", ".join([time, *renamed[:5], *(["..."] if len(renamed) > 5 else [])])


def _objects(column: pa.Array) -> Any:
    return column.to_numpy(zero_copy_only=False)


def _column_of(machine: str, table: MeterTableSettings) -> str | None:
    """The wide table's column of a machine that a long file names; None: it has none."""
    named = table.source_machines or {f"machine_{n}": n for n in range(1, 10_000)}
    if machine in named:
        return machine
    return next((column for column, number in named.items() if str(number) == machine), None)


def _as_ids(machines: list[str]) -> list[str] | list[int]:
    if all(name.lstrip("+-").isascii() and name.lstrip("+-").isdigit() for name in machines):
        return sorted(map(int, machines))
    return sorted(machines)
