"""Which column of a file is the time, which are machines, and which are left out."""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from anomaly.database.meter_table_loading import OWN_TABLE
from anomaly.errors import IngestError
from anomaly.loading.number_parsing import MISSING
from anomaly.loading.time_parsing import Order, find_order
from anomaly.readings.record import MACHINES, RECORD
from anomaly.settings import Layout, MeterTableSettings

# Prefixes of the columns of the public file "household data" of Open Power System Data.
OPSD_SITE = "DE_KN_industrial3_"
OPSD_OTHER_SITES = "DE_KN_"

_NOT_READINGS = {"interpolated", "ingested_at"}
_MACHINE = re.compile(r"machine_\d+", re.ASCII)
_CLOCK_ALONE = re.compile(
    r"\d{1,2}:\d{2}(:\d{2})?(\.\d+)?\s*([AaPp]\.?[Mm]\.?)?(\s*(-|to|bis)\s*\d.*)?"
)
_STAMP = re.compile(r"(19|20)\d\d[01]\d[0-3]\d[0-2]\d[0-5]\d([0-5]\d)?", re.ASCII)
_TIME_NAME = re.compile("time|date|stamp|zeit|datum", re.IGNORECASE)
_METER_NAME = re.compile(
    r"(meter|machine|device|sensor|tag|asset|equipment|point|serial|channel_?name|z(ä|ae)hler"
    r"|maschine|anlage|ger(ä|ae)t|compteur|medidor|contatore|equipo)"
    r"(_?(id|name|no|nr|num|number|serial|nummer|code|tag|key))?",
    re.IGNORECASE,
)
_READING_NAME = re.compile(
    r"value|reading|wert|messwert|valeur|valor|valore|kwh|energy|consumption|usage", re.IGNORECASE
)
_UNIT_NAME = re.compile(
    r"units?|uom|unit_of_measure|einheit|unité|unidad|unità|eenheid", re.IGNORECASE
)
# Columns of numbers that are no meter's.
_ROW_NUMBER = re.compile(r"#|no\.?|nr\.?|index|row|id|lfd\.?_?nr\.?|record", re.IGNORECASE)
_STATE = re.compile(r"status|state|quality|flag|qualität|etat|état|estado", re.IGNORECASE)
_OTHER_UNIT = re.compile(
    r"[\[(]\s*(°\s*[CFK]|K|m³|m3|m\^3|Nm³|l|l/h|l/min|m³/h|m3/h|bar|mbar|Pa|kPa|%|V|A|mA|Hz|rpm"
    r"|1/min|pcs|Stk|kg|t|€|EUR|\$|kvarh?|var|kVAh?|VA|cos.*)\s*[\])]",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"[+-]?[\d.,' \xa0]*\d[\d.,]*(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True)
class Plan:
    """Which columns of a file are loaded, and as what.

    Attributes
    ----------
    layout : Layout
        The file's own layout.
    time : list of int
        Place of the time in a row; two places: of the date and of the time of day.
    machine, value : int or None
        Long files: places of the machine and of the reading.
    unit : int or None
        Long files: place of the readings' unit.
    machine_names : dict of str to str
        Long files for a wide table: machines that the table's columns name otherwise.
    places : dict of str to int
        Wide files: the target's columns (or machines), in its order, and their places.
    texts : frozenset of str
        Those of `places` that hold text; the others hold readings.
    machines : list of str
        Those of `places` that are machines.
    ignored : list of str
        Columns of the file that are left out.
    skips_empty : bool
        Rows without a reading are left out: the public file has years of them.
    """

    layout: Layout
    time: list[int]
    machine: int | None = None
    value: int | None = None
    unit: int | None = None
    machine_names: dict[str, str] = field(default_factory=dict)
    places: dict[str, int] = field(default_factory=dict)
    texts: frozenset[str] = frozenset()
    machines: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    skips_empty: bool = False

    @property
    def wanted(self) -> list[int]:
        """Places of all columns that are read."""
        long = [n for n in (self.machine, self.value, self.unit) if n is not None]
        return [*self.time, *long, *self.places.values()]

    @property
    def numbers(self) -> list[int]:
        """Places of the columns that hold readings."""
        if self.value is not None:
            return [self.value]
        return [place for name, place in self.places.items() if name not in self.texts]


class Planner:
    """Finds out what the columns of one file are.

    Parameters
    ----------
    header : sequence of str
        The file's names.
    sample : sequence of sequence of str
        The first cells of each column as text.
    meter_table : MeterTableSettings
        The table into which the file is loaded.
    renamed : mapping of str to str
        Columns of the file, and what they are in the table: what ``--columns`` says.
    ignore_unknown : bool
        Leave out columns that the table does not know.
    """

    def __init__(
        self,
        file: str,
        header: Sequence[str],
        sample: Sequence[Sequence[str]],
        meter_table: MeterTableSettings,
        renamed: Mapping[str, str],
        *,
        ignore_unknown: bool,
    ) -> None:
        self._file = file
        self._header = header
        self._sample = sample
        self._table = meter_table
        self._ignore_unknown = ignore_unknown
        self._is_wide = meter_table.source_layout is Layout.WIDE
        self._is_own = meter_table.source_name == OWN_TABLE
        self._machine_names = [*(meter_table.source_machines or MACHINES)]
        self._renamed_machines: dict[str, str] = {}
        self._target = self._renamed({shown: name for shown, name in renamed.items() if name})
        self._gone = {
            place
            for shown, name in renamed.items()
            if not name
            for place in self._places(shown) or self._refuse_column(shown)
        }
        self._empty = [
            not name and all(not cell.strip() for cell in cells)
            for name, cells in zip(header, sample, strict=True)
        ]

    def plan(self) -> Plan:
        """Decide what each column is.

        Raises
        ------
        IngestError
            When there is no time or no reading, when a column could be either of two, or when
            columns are not known.
        """
        time = self._time()
        rest = [
            n
            for n in range(len(self._header))
            if n not in time and not self._empty[n] and n not in self._gone
        ]
        self._refuse_days(rest)
        plan = self._long(time, rest) or self._wide(time, rest)
        gone = [self._header[place] for place in sorted(self._gone)]
        return replace(plan, ignored=[*plan.ignored, *gone])

    def _refuse_days(self, rest: Sequence[int]) -> None:
        """Refuse a table with a row per day and a column per time of day."""
        clocks = [n for n in rest if _CLOCK_ALONE.fullmatch(self._header[n].strip())]
        if len(clocks) > max(1, len(rest) / 2):
            raise IngestError(
                f"{self._file} has one row per day, and a column per time of day"
                f" ({shown_columns([self._header[n] for n in clocks])}): write one row per"
                " reading first (pandas: DataFrame.melt)"
            )

    # Names --------------------------------------------------------------

    def _renamed(self, renamed: Mapping[str, str]) -> dict[int, str]:
        target: dict[int, str] = {}
        for shown, name in renamed.items():
            if places := self._places(shown):
                target[places[0]] = name
            elif self._is_wide and name in self._machine_names:
                self._renamed_machines[shown] = name  # a machine of a long file, perhaps
            else:
                raise self._no_column(shown)
        return target

    def _refuse_column(self, shown: str) -> list[int]:
        raise self._no_column(shown)

    def _no_column(self, shown: str) -> IngestError:
        return IngestError(
            f"{self._file} has no column {shown!r}, {shown_columns(self._header)}: write --columns"
            " 'name in the file=name in the table'"
        )

    def _places(self, name: str) -> list[int]:
        """Places of the columns with a name; letter case and spaces count only if needed."""
        exact = [n for n, shown in enumerate(self._header) if shown == name]
        return exact or [n for n, shown in enumerate(self._header) if _same(shown, name)]

    def _named(self, name: str, among: Sequence[int]) -> list[int]:
        """Places of the columns that are to become one of the table."""
        said = [place for place, target in self._target.items() if target == name]
        if said:
            return [place for place in said if place in among]
        return [n for n in self._places(name) if n in among and n not in self._target]

    # The time -----------------------------------------------------------

    def _time(self) -> list[int]:
        everything = range(len(self._header))
        name = self._table.source_timestamp_column
        if named := self._named(name, everything):
            if len(named) > 2 or (len(named) == 2 and not any(map(self._is_clock, named))):
                raise IngestError(f"{self._file} has two columns {name}: keep the right one")
            return self._with_clock(named)
        free = [n for n in everything if n not in self._target and n not in self._gone]
        times = [n for n in free if self._is_time(n)]
        clocks = [n for n in free if self._is_clock(n)]
        dates = [n for n in times if self._is_date(n, clocks)]
        whole = [n for n in times if n not in dates]
        if len(whole) == 1:
            return whole
        if not whole and len(dates) == 1:
            return self._with_clock(dates)
        if times:
            names = " and ".join(repr(self._header[n]) for n in [*times, *clocks])
            example = f"--columns {quoted(self._header[times[0]])}={name}"
            raise IngestError(
                f"{self._file} has several columns with times, {names}: say which is the"
                f" reading's, for example {example}"
            )
        raise IngestError(
            f"{self._file} has no column {name!r}, {shown_columns(self._header)}: rename one, or"
            f" say which it is, for example --columns {quoted(self._header[0])}={name}"
        )

    def _with_clock(self, dates: list[int]) -> list[int]:
        """Add the column with the time of day to one with dates alone."""
        if len(dates) == 2:
            return sorted(dates, key=self._is_clock)
        clocks = [
            n for n in range(len(self._header)) if n not in self._target and self._is_clock(n)
        ]
        if not self._is_date(dates[0], clocks):
            return dates
        cells = self._cells(dates[0])
        if len(set(cells)) == len(cells) and not self._target:
            return dates  # each date stands for itself, as in a file of days
        if len(clocks) > 1:
            names = " and ".join(repr(self._header[n]) for n in clocks)
            name = self._table.source_timestamp_column
            raise IngestError(
                f"{self._file} has several columns with a time of day, {names}: say which is the"
                f" reading's: --columns {quoted(self._header[dates[0]])}={name} --columns"
                f" {quoted(self._header[clocks[0]])}={name}"
            )
        return [*dates, *clocks]

    def _cells(self, place: int) -> list[str]:
        return [cell for cell in self._sample[place] if cell.strip()]

    def _is_time(self, place: int) -> bool:
        cells = self._cells(place)
        found = find_order(cells[:50])
        if not cells or found.unknown is not None:
            return False
        # Digits alone may be anything, so their number or the name must say that they are a time.
        is_said = all(_STAMP.fullmatch(cell.strip()) for cell in cells[:50])
        named = _TIME_NAME.search(self._header[place]) is not None
        return found.order is not Order.DIGITS or is_said or named

    def _is_date(self, place: int, clocks: Sequence[int]) -> bool:
        """Whether a column of times holds dates alone; a workbook writes those as midnights."""
        cells = self._cells(place)
        midnights = bool(clocks) and all(cell.rstrip().endswith(" 00:00:00") for cell in cells)
        return midnights or not any(":" in cell for cell in cells)

    def _is_clock(self, place: int) -> bool:
        cells = self._cells(place)
        return bool(cells) and all(_CLOCK_ALONE.fullmatch(cell.strip()) for cell in cells[:50])

    def _is_number(self, place: int) -> bool:
        """Whether most cells are numbers: those that are not are told by their line."""
        cells = [cell for cell in self._cells(place) if cell.strip() not in MISSING][:50]
        return 2 * sum(bool(_NUMBER.fullmatch(cell.strip())) for cell in cells) >= len(cells)

    def _is_no_meter(self, place: int) -> bool:
        """Whether a column's name or its cells say that its numbers are no machine's readings."""
        name = _plain(self._header[place])
        if _STATE.fullmatch(name) or _OTHER_UNIT.search(self._header[place]):
            return True
        cells = [cell.strip() for cell in self._cells(place)[:50]]
        if not _ROW_NUMBER.fullmatch(name) or not all(map(str.isdecimal, cells)):
            return False
        numbers = [*map(int, cells)]
        return numbers == [*range(numbers[0], numbers[0] + len(numbers))]

    # Long files ---------------------------------------------------------

    def _long(self, time: list[int], rest: list[int]) -> Plan | None:
        """The plan of a file with one row per reading; None: it is wide."""
        names = (self._table.source_machine_column, self._table.source_value_column)
        machine, value = (self._named(name, rest) for name in names)
        by_shape = self._long_by_shape(time, rest) or self._long_by_names(rest)
        if not (machine or value) and by_shape:
            machine, value = [by_shape[0]], [by_shape[1]]
        elif machine and not value and by_shape and by_shape[0] == machine[0]:
            value = [by_shape[1]]
        if not machine and not value:
            return None
        if not self._is_wide or (machine and value):
            settings = ("ANOMALY_SOURCE_MACHINE_COLUMN", "ANOMALY_SOURCE_VALUE_COLUMN")
            for found, name, setting in zip((machine, value), names, settings, strict=True):
                if not found and (self._is_wide or not self._may_be_wide(rest)):
                    raise IngestError(
                        f"{self._file} has no column {name!r}, {shown_columns(self._header)}:"
                        f" rename one, or set {setting}"
                    )
                if len(found) > 1:
                    raise IngestError(f"{self._file} has two columns {name}: keep the right one")
        if not machine or not value:
            return None
        units = [n for n in rest if _UNIT_NAME.fullmatch(_plain(self._header[n]))]
        unit = units[0] if len(units) == 1 and units[0] not in (*machine, *value) else None
        known = [*machine, *value, unit]
        ignored = self._unknown([n for n in rest if n not in known], [*names])
        return Plan(
            Layout.LONG, time, machine[0], value[0], unit, self._renamed_machines, ignored=ignored
        )

    def _may_be_wide(self, rest: Sequence[int]) -> bool:
        return not self._is_wide and not any(
            self._named(name, rest)
            for name in (self._table.source_machine_column, self._table.source_value_column)
        )

    def _long_by_shape(self, time: list[int], rest: list[int]) -> tuple[int, int] | None:
        """A column of machines and one of readings, told by their cells alone."""
        left = [n for n in rest if n not in self._target and not self._may_be_left_out(n)]
        if len(left) != 2 or self._target:
            return None
        texts = [n for n in left if not self._is_number(n)]
        numbers = [n for n in left if self._is_number(n)]
        if len(texts) != 1 or len(numbers) != 1:
            return None
        machines = self._cells(texts[0])
        moments = list(zip(*(self._sample[n] for n in time), strict=True))
        keys = list(zip(moments, self._sample[texts[0]], strict=True))
        if self._is_wide and self._accepted_name(numbers[0], [*self._machine_names, *RECORD[1:]]):
            return None  # the column of a machine, beside a column of remarks
        # Several machines have a reading at one time, and each hardly ever two.
        repeats = len(set(machines)) < len(machines) and len(set(moments)) < len(moments)
        repeats |= not self._renamed_machines.keys().isdisjoint(machines)
        distinct = len(set(keys)) >= 0.9 * len(keys)
        return (texts[0], numbers[0]) if repeats and distinct else None

    def _long_by_names(self, rest: Sequence[int]) -> tuple[int, int] | None:
        """A column that is called a meter, and the only one with readings beside it."""
        if self._is_wide and any(
            self._accepted_name(n, [*self._machine_names, *RECORD[1:]])
            for n in rest
            if n not in self._target
        ):
            return None
        meters = [
            n
            for n in rest
            if n not in self._target and _METER_NAME.fullmatch(_plain(self._header[n]))
        ]
        if len(meters) != 1:
            return None
        numbers = [
            n
            for n in rest
            if n != meters[0]
            and n not in self._target
            and self._is_number(n)
            and not self._may_be_left_out(n)
            and not self._is_no_meter(n)
        ]
        named = [n for n in numbers if _READING_NAME.search(self._header[n])]
        values = numbers if len(numbers) == 1 else named
        return (meters[0], values[0]) if len(values) == 1 else None

    def _may_be_left_out(self, place: int) -> bool:
        return self._header[place] in self._left_out()

    # Wide files ---------------------------------------------------------

    def _wide(self, time: list[int], rest: list[int]) -> Plan:
        for shown in self._renamed_machines:
            raise self._no_column(shown)
        if not self._is_wide:
            return self._wide_for_long_table(time, rest)
        accepted = [*self._table.source_machines]
        if self._is_own:
            accepted += [name for name in RECORD[1:] if name not in accepted]
        found: dict[str, int] = {}
        unknown = []
        for place in rest:
            name = self._accepted_name(place, accepted)
            if name is None:
                unknown.append(place)
            elif name in found:
                raise IngestError(f"{self._file} has two columns {name}: keep the right one")
            else:
                found[name] = place
        machines = self._machines(found)
        ignored = self._unknown(unknown, accepted, any_machine=bool(machines))
        if not machines:
            first = self._machine_names[0]
            example = self._header[unknown[0]] if unknown else "name in the file"
            raise IngestError(
                f"{self._file} has no machine column, {shown_columns(self._header)}: name them"
                f" {', '.join(self._machine_names[:2])} and so on, or (one row per reading:"
                f" NAME={self._table.source_machine_column} and"
                f" NAME={self._table.source_value_column})"
                f" say which they are, for example --columns {quoted(f'{example}={first}')}"
            )
        order = [name for name in accepted if name in found]
        places = {name: found[name] for name in dict.fromkeys([*order, *found])}
        return Plan(
            Layout.WIDE,
            time,
            places=places,
            texts=frozenset({RECORD[1]} & found.keys()) if self._is_own else frozenset(),
            machines=machines,
            ignored=ignored,
            skips_empty=any(name.startswith(OPSD_OTHER_SITES) for name in self._header),
        )

    def _machines(self, found: Mapping[str, int]) -> list[str]:
        """Those columns that are machines, in the order of the table."""
        if self._table.source_machines:
            return [name for name in self._table.source_machines if name in found]
        if self._is_own:
            return [name for name in MACHINES if name in found]
        return [name for name in found if _MACHINE.fullmatch(name)]

    def _accepted_name(self, place: int, accepted: Sequence[str]) -> str | None:
        """The table's name of a column, or None if it has none."""
        any_machine = not self._is_own and not self._table.source_machines
        if place in self._target:
            name = self._target[place]
            if name not in accepted and not (any_machine and _MACHINE.fullmatch(name)):
                raise IngestError(
                    f"{self._file}: {self._table.source_name} has no column"
                    f" {self._target[place]!r}{_near(self._target[place], accepted)}"
                )
            return self._target[place]
        shown = self._header[place].removeprefix(OPSD_SITE)
        if shown in accepted:
            return shown
        if any_machine and _MACHINE.fullmatch(_plain(shown)):
            return _plain(shown)
        return next((name for name in accepted if _same(shown, name)), None)

    def _wide_for_long_table(self, time: list[int], rest: list[int]) -> Plan:
        """Each column of numbers is a machine with the column's name."""
        found: dict[str, int] = {}
        unknown = []
        for place in rest:
            name = self._target.get(place, self._header[place])
            left_out = self._may_be_left_out(place) or not name
            is_meter = self._is_number(place) and not self._is_no_meter(place)
            if left_out or (place not in self._target and not is_meter):
                unknown.append(place)
            elif name in found:
                raise IngestError(f"{self._file} has two columns {name}: keep the right one")
            else:
                found[name] = place
        ignored = self._unknown(unknown, [])
        if not found:
            raise IngestError(
                f"{self._file} has no column of numbers, {shown_columns(self._header)}: name a"
                f" column {self._table.source_machine_column!r} and one"
                f" {self._table.source_value_column!r}, or one per machine"
            )
        return Plan(Layout.WIDE, time, places=found, machines=[*found], ignored=ignored)

    # Columns that nobody knows ------------------------------------------

    def _left_out(self) -> set[str]:
        return (_NOT_READINGS | {self._table.source_ingested_at_column}) - {""}

    def _unknown(
        self, places: Sequence[int], accepted: Sequence[str], *, any_machine: bool = True
    ) -> list[str]:
        """Names of the columns that are left out; refuses those that may not be."""
        ignored: list[int] = []
        unknown: list[int] = []
        for place in places:
            shown = self._header[place]
            other_site = shown.removeprefix(OPSD_SITE).startswith(OPSD_OTHER_SITES)
            may_go = shown in self._left_out() or other_site or self._ignore_unknown
            (ignored if may_go else unknown).append(place)
        if unknown and (any_machine or not self._is_wide):
            raise IngestError(self._unknown_message(unknown, accepted))
        return [self._header[place] or f"column {place + 1}" for place in ignored]

    def _unknown_message(self, unknown: Sequence[int], accepted: Sequence[str]) -> str:
        """The message about all unknown columns, with the next step."""
        if len(unknown) == 1 and not self._header[unknown[0]]:
            return (
                f"{self._file} has no name for column {unknown[0] + 1}: remove it (pandas:"
                " to_csv(index=False)), or leave it out by --ignore-unknown"
            )
        many = len(unknown) > 1
        names = [self._with_hint(place, accepted, sole=not many) for place in unknown]
        known = f"; known: {', '.join(accepted)}" if accepted and "did you" not in names[0] else ""
        if MACHINES[0] in accepted and any(_MACHINE.fullmatch(self._header[n]) for n in unknown):
            known = (
                f"; {self._table.source_name} has {MACHINES[0]} to {MACHINES[-1]}: all machines"
                " fit into a long table (ANOMALY_SOURCE_LAYOUT=long)"
            )
        machines = [name for name in accepted if name in self._machine_names] or accepted
        target = machines[0] if machines else "machine"
        example = quoted(f"{self._header[unknown[0]]}={target}")
        it, they_are = ("them", "they are") if many else ("it", "it is")
        colon = "" if names[0].endswith("Else") else ":"
        return (
            f"{self._file} has {'unknown columns' if many else 'an unknown column'}"
            f" {', '.join(names)}{colon} leave {it} out by --ignore-unknown, or say what"
            f" {they_are}, for example --columns {example}{known}"
        )

    def _with_hint(self, place: int, accepted: Sequence[str], *, sole: bool) -> str:
        """A column's name, with the name that may have been meant."""
        if not (shown := self._header[place]):
            return f"column {place + 1}"
        if not (close := _close(shown, accepted)):
            return repr(shown)
        hint = f"did you mean {close[0]!r}?"
        return f"{shown!r}: {hint} Else" if sole else f"{shown!r} ({hint})"


def _same(one: str, other: str) -> bool:
    return _plain(one) == _plain(other)


def _plain(name: str) -> str:
    return re.sub(r"[\s\-]+", "_", name.strip()).casefold()


def _close(shown: str, accepted: Sequence[str]) -> list[str]:
    if _MACHINE.fullmatch(shown):
        return []
    return difflib.get_close_matches(_plain(shown.removeprefix(OPSD_SITE)), accepted, n=1)


def _near(name: str, accepted: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, accepted, n=1)
    return f": did you mean {close[0]!r}?" if close else f": it has {', '.join(accepted)}"


def shown_columns(header: Sequence[str]) -> str:
    """The first names of a header, for a message."""
    shown = ", ".join(map(repr, header[:6]))
    return f"it has {shown}{', ...' * (len(header) > 6)}"


def quoted(text: str) -> str:
    """A word as it is written in a shell."""
    return text if re.fullmatch(r"[\w./=+-]+", text) else f"'{text}'"
