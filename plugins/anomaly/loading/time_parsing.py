"""Times in a file's texts: which way they are written, and what moments they are."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from enum import StrEnum
from functools import lru_cache
from typing import ClassVar, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from dateutil import parser as dateutil_parser

from anomaly.arrays import Bools, Ints

Stamps = npt.NDArray[np.datetime64]

_CLOCK = (
    r"(?P<h>\d{1,2})[:.](?P<mi>\d{2})(?:[:.](?P<s>\d{2})(?:[.,](?P<f>\d{1,9}))?)?"
    r"\s*(?P<ap>(?:[AaPp]\.?[Mm]\.?)?)"
)
_OFFSET_HOURS = {
    "Z": 0, "UTC": 0, "GMT": 0, "WET": 0, "WEST": 1, "CET": 1, "MEZ": 1, "CEST": 2, "MESZ": 2,
    "EET": 2, "EEST": 3, "EST": -5, "EDT": -4, "CDT": -5, "MST": -7, "MDT": -6, "PST": -8,
    "PDT": -7, "AEST": 10, "AEDT": 11, "AWST": 8, "NZST": 12, "NZDT": 13, "JST": 9,
}  # fmt: skip
"""Names of offsets. Those of North America as in RFC 2822; CST is China's as well, so nobody knows
which is meant."""
_ZONE_NAMES = "|".join(sorted(_OFFSET_HOURS, key=len, reverse=True))
_ZONE = rf"\s*(?P<z>(?:[Zz]|[+-]\d{{2}}(?::?\d{{2}})?|{_ZONE_NAMES})?)"
_YEAR_FIRST = (
    rf"^(?P<a>\d{{4}})[-/.](?P<b>\d{{1,2}})[-/.](?P<c>\d{{1,2}})(?:[T ]\s*{_CLOCK})?{_ZONE}$"
)
_YEAR_LAST = (
    r"^(?P<a>\d{1,2})[-/.](?P<b>\d{1,2})[-/.](?P<c>\d{4}|\d{2})"
    rf"(?:,?[T ]\s*{_CLOCK})?{_ZONE}$"
)
_SHORT_DASHES = r"^\d{1,2}-\d{1,2}-\d{2}(?:\D|$)"
_CLOCKS = r"^\d{1,2}:\d{2}(?::\d{2})?\s*(?:-|\x{2013}|to|bis)\s*\d{1,2}:\d{2}"
"""From one time of day to another, in a column of its own."""
_RANGE = r"^(?P<from>.*\d.*?)\s+(?:to|bis|until|-|\x{2013}|\x{2014}|/)\s+(?P<to>.*\d.*)$"
_DIGITS = r"^\d{8}$|^\d{10}(?:\.\d{1,9})?$|^\d{12,14}$|^\d{16}$|^[0-8]\d{18}$"
_WORDS = (
    r"^\d{1,2}(?:[-. ]+| de )\p{L}{3,10}(?:[-., ]+| de )\d{4}\b"
    r"|^\p{L}{3,10}\.? \d{1,2},? \d{4}\b"
)
_RUN_TOGETHER = (
    (r"^(\d{4})(\d{2})(\d{2})[T ]+(\d{2})(\d{2})(\d{2})", r"\1-\2-\3 \4:\5:\6"),
    (r"^(\d{4})(\d{2})(\d{2})[T ]+(\d{2})(\d{2})", r"\1-\2-\3 \4:\5"),
    (r"^(\d{4})(\d{2})(\d{2})[T ]+(\d{1,2}:)", r"\1-\2-\3 \4"),
)
"""ISO 8601 without marks between."""
_ENDS_WITH_ZONE = r":\d{2}(?:[.,]\d+)?\s*(?:[Zz]|[+-]\d{2}(?::?\d{2})?)$"

_MIDNIGHT = re.compile(r" 24:00(:00)?\b")

HOURLY = -10
"""In place of a length: ten digits that are no Unix time."""
_EPOCH_DIGITS = {10: 1_000_000, 13: 1000, 16: 1, 19: -1000}
"""Digits of a Unix time in s, ms, us and ns, and the microseconds of one (-1000: a thousandth)."""

NO_OFFSET = 10**6
"""In place of an offset that no zone has, minutes."""
LAST_TIME = np.datetime64("9999-12-31T00:00", "us")
"""Later times are those of an open end, and neither Python nor pandas has them all."""
NOT_A_TIME = np.datetime64("NaT", "us")


class Order(StrEnum):
    """How the day, the month and the year of a time are ordered."""

    YEAR_FIRST = "year-first"
    DAY_FIRST = "day-first"
    MONTH_FIRST = "month-first"
    DIGITS = "digits"
    WORDS = "words"

    def describe(self) -> str:
        """The order in words."""
        return {
            Order.YEAR_FIRST: "year-month-day",
            Order.DAY_FIRST: "day.month.year",
            Order.MONTH_FIRST: "month/day/year",
            Order.DIGITS: "digits alone",
            Order.WORDS: "with the month's name",
        }[self]


@dataclass(frozen=True)
class OrderEvidence:
    """Which orders some times allow.

    Attributes
    ----------
    order : Order or None
        The only order in which they can be read; None: there are two, or none.
    either : str or None
        A time that can be read in two orders, such as 3/4/2024, where nothing tells which.
    unknown : str or None
        The first text that is no time in any order, if none is one.
    """

    order: Order | None
    either: str | None = None
    unknown: str | None = None


def find_order(texts: Iterable[str]) -> OrderEvidence:
    """Find out how times are written from some of them."""
    cells = pa.array([*dict.fromkeys(text.strip() for text in texts if text.strip())], pa.string())
    cells = _range_starts(_usual_marks(cells))
    if _all(pc.match_substring_regex(cells, _DIGITS)) and len(cells):
        return OrderEvidence(Order.DIGITS)
    first = None
    for cell in cells.to_pylist():
        first = first or cell
        one = pa.array([cell], pa.string())
        if _any(pc.match_substring_regex(one, _YEAR_FIRST)):
            return OrderEvidence(Order.YEAR_FIRST)
        if _any(pc.match_substring_regex(one, _WORDS)):
            return OrderEvidence(Order.WORDS)
        if _any(pc.match_substring_regex(one, _YEAR_LAST)):
            return _order_of_year_last(cells)
    return OrderEvidence(None, unknown=first)


def _order_of_year_last(cells: pa.Array) -> OrderEvidence:
    found = pc.extract_regex(cells, _YEAR_LAST).drop_null()
    first, second = (_numbers(found.field(name)) for name in "ab")
    texts = cells.filter(pc.match_substring_regex(cells, _YEAR_LAST)).to_pylist()
    if "." in texts[0][:3]:  # nobody writes months first and points between
        return OrderEvidence(Order.DAY_FIRST)
    years = pc.unique(found.field("c"))
    if len(years[0].as_py()) == 2 and (first > 12).any() and len(np.unique(first)) <= len(years):
        return OrderEvidence(None, unknown=texts[0])  # 24/03/01 may begin with the year
    if (first > 12).any():
        return OrderEvidence(Order.DAY_FIRST)
    if (second > 12).any():
        return OrderEvidence(Order.MONTH_FIRST)
    differs = next((n for n in range(len(first)) if first[n] != second[n]), 0)
    return OrderEvidence(None, either=texts[differs])


def parse_times(texts: pa.Array, order: Order) -> tuple[Stamps, Bools, Bools]:
    """Read texts, or times of a typed file, as moments.

    A time of 24:00 is midnight at the day's end. Of two times in one cell (``from to to``) the
    first counts.

    Parameters
    ----------
    texts : pyarrow.Array of strings, timestamps or whole numbers

    Returns
    -------
    stamps : array of datetime64[us]
        In UTC where the text has a zone, else as the clock shows it; NaT: no time.
    aware : array of bool
        Which have a zone.
    empty : array of bool
        Which are empty.
    """
    if pa.types.is_timestamp(texts.type):
        return _typed(texts)
    if pa.types.is_floating(texts.type):
        texts = _whole_numbers(texts)
    if not pa.types.is_string(texts.type):
        texts = texts.cast(pa.string())
    texts = pc.fill_null(pc.utf8_trim_whitespace(texts), "")
    empty = pc.equal(texts, "").to_numpy(zero_copy_only=False)
    if order is Order.YEAR_FIRST and (quick := _quickly(texts)) is not None:
        return (*quick, empty)
    texts = _range_starts(_usual_marks(texts))
    if order is Order.WORDS:
        stamps, aware = _by_words(texts.to_pylist())
    elif order is Order.DIGITS:
        stamps, aware = _by_digits(texts)
    else:
        stamps, aware = _by_parts(texts, order)
    return stamps, aware, empty


def _typed(column: pa.Array) -> tuple[Stamps, Bools, Bools]:
    zone = column.type.tz
    micro = column.cast(pa.timestamp("us", zone), safe=False).cast(pa.int64())
    empty = micro.is_null().to_numpy(zero_copy_only=False)
    stamps = pc.fill_null(micro, 0).to_numpy().astype("datetime64[us]")
    stamps[empty | (np.abs(stamps.astype(np.int64)) > LAST_TIME.astype(np.int64))] = NOT_A_TIME
    return stamps, np.full(len(stamps), zone is not None), empty


def _quickly(texts: pa.Array) -> tuple[Stamps, Bools] | None:
    """Read plain ISO 8601 as a column; None: some text needs to be looked at."""
    zoned = pc.match_substring_regex(texts, _ENDS_WITH_ZONE)
    aware = _all(zoned)
    if not aware and _any(zoned):
        return None
    try:
        read = texts.cast(pa.timestamp("us", "UTC") if aware else pa.timestamp("us"))
    except pa.ArrowInvalid:
        return None
    stamps = read.cast(pa.int64()).to_numpy().astype("datetime64[us]")
    return stamps, np.full(len(stamps), aware)


def _by_parts(texts: pa.Array, order: Order) -> tuple[Stamps, Bools]:
    pattern = _YEAR_FIRST if order is Order.YEAR_FIRST else _YEAR_LAST
    found = pc.extract_regex(texts, pattern)
    valid = found.is_valid().to_numpy(zero_copy_only=False)
    a, b, c, hour, minute, second = (
        _numbers(found.field(name)) for name in ("a", "b", "c", "h", "mi", "s")
    )
    year, month, day = {
        Order.YEAR_FIRST: (a, b, c),
        Order.DAY_FIRST: (c, b, a),
        Order.MONTH_FIRST: (c, a, b),
    }[order]
    year = np.where(year < 100, year + 2000, year)
    # With dashes a year of two digits may stand first as well as last.
    valid &= ~pc.match_substring_regex(texts, _SHORT_DASHES).to_numpy(zero_copy_only=False)
    half = pc.utf8_lower(pc.fill_null(found.field("ap"), ""))
    has_half = pc.not_equal(half, "").to_numpy(zero_copy_only=False)
    afternoon = pc.starts_with(half, "p").to_numpy(zero_copy_only=False)
    valid &= ~has_half | ((hour >= 1) & (hour <= 12))
    hour = np.where(has_half, hour % 12 + 12 * afternoon, hour)
    micro = _micro(found.field("f"))
    stamps = _moments(valid, year, month, day, hour, minute, second, micro)
    return _in_utc(stamps, pc.fill_null(found.field("z"), ""))


def _micro(fraction: pa.Array) -> Ints:
    """Microseconds of the decimals of a second."""
    padded = pc.utf8_rpad(pc.fill_null(fraction, ""), 6, "0")
    return _numbers(pc.utf8_slice_codeunits(padded, 0, 6))


def _moments(
    valid: Bools,
    year: Ints,
    month: Ints,
    day: Ints,
    hour: Ints,
    minute: Ints,
    second: Ints,
    micro: Ints,
) -> Stamps:
    valid &= (year >= 1) & (month >= 1) & (month <= 12) & (day >= 1) & (day <= 31)
    valid &= (minute < 60) & (second < 60)
    valid &= (hour < 24) | ((hour == 24) & (minute == 0) & (second == 0) & (micro == 0))
    months = (year - 1970) * 12 + month - 1
    first = np.where(valid, months, 0).astype("datetime64[M]")
    days = first.astype("datetime64[D]") + (day - 1)
    valid &= days.astype("datetime64[M]") == first  # not 31 April
    seconds = (hour * 60 + minute) * 60 + second
    stamps = days.astype("datetime64[us]") + (seconds * 1_000_000 + micro).astype("timedelta64[us]")
    stamps[~valid | (stamps > LAST_TIME)] = NOT_A_TIME
    return cast(Stamps, stamps)


def _in_utc(stamps: Stamps, zones: pa.Array) -> tuple[Stamps, Bools]:
    """Take the offsets of zones off."""
    aware = pc.not_equal(zones, "").to_numpy(zero_copy_only=False)
    if aware.any():
        coded = zones.dictionary_encode()
        minutes = [_offset_minutes(name) for name in coded.dictionary.to_pylist()]
        offsets = np.array([NO_OFFSET if one is None else one for one in minutes])
        taken = offsets[coded.indices.to_numpy()]
        stamps = stamps - taken.astype("timedelta64[m]")
        stamps[taken == NO_OFFSET] = NOT_A_TIME
    return stamps, aware


def _offset_minutes(zone: str) -> int | None:
    """An offset from UTC; None: there is no such zone, as in 00:15-00:30."""
    name = zone.upper()
    if not name or name in _OFFSET_HOURS:
        return 60 * _OFFSET_HOURS.get(name, 0)
    digits = name[1:].replace(":", "").ljust(4, "0")
    hours, minutes = int(digits[:2]), int(digits[2:])
    if minutes not in (0, 30, 45) or hours > 14 or (hours == 0 and minutes):
        return None
    return (1 if name[0] == "+" else -1) * (60 * hours + minutes)


def _by_digits(texts: pa.Array) -> tuple[Stamps, Bools]:
    """Unix times, or a date and a time without marks between."""
    fraction = pc.extract_regex(texts, r"^\d{10}\.(?P<f>\d+)$").field("f")
    texts = pc.replace_substring_regex(texts, r"^(\d{10})\.\d+$", r"\1")
    length = pc.utf8_length(texts).to_numpy().astype(int)
    length[~pc.match_substring_regex(texts, _DIGITS).to_numpy(zero_copy_only=False)] = 0
    # From 2030 on ten digits are no Unix time here, but a year, a month, a day and an hour.
    hourly = pc.match_substring_regex(texts, r"^(?:19|20)\d{8}$").to_numpy(zero_copy_only=False)
    length[hourly] = HOURLY
    future = pc.match_substring_regex(texts, r"^[2-9]\d{9}$").to_numpy(zero_copy_only=False)
    length[future & ~hourly] = 0
    stamps = np.full(len(length), NOT_A_TIME)
    aware = np.isin(length, [*_EPOCH_DIGITS])
    numbers = _numbers(pc.if_else(pa.array(aware), texts, "0"))
    for digits, micro in _EPOCH_DIGITS.items():
        ticks = numbers * micro if micro > 0 else numbers // -micro
        stamps = np.where(length == digits, ticks.astype("datetime64[us]"), stamps)
    stamps = stamps + _micro(fraction).astype("timedelta64[us]")
    for digits in (8, HOURLY, 12, 14):
        chosen = length == digits
        if chosen.any():
            padded = pc.utf8_rpad(texts, 14, "0")
            year, month, day, hour, minute, second = (
                _numbers(pc.if_else(pa.array(chosen), pc.utf8_slice_codeunits(padded, *ends), "0"))
                for ends in ((0, 4), (4, 6), (6, 8), (8, 10), (10, 12), (12, 14))
            )
            zeros = np.zeros(len(chosen), dtype=np.int64)
            read = _moments(chosen.copy(), year, month, day, hour, minute, second, zeros)
            stamps = np.where(chosen, read, stamps)
    return stamps, aware


def _by_words(texts: Sequence[str]) -> tuple[Stamps, Bools]:
    stamps = np.full(len(texts), NOT_A_TIME)
    aware = np.zeros(len(texts), dtype=bool)
    for place, text in enumerate(texts):
        moment = _moment_of_words(text)
        if moment is not None:
            aware[place] = moment.tzinfo is not None
            offset = moment.utcoffset()
            utc = moment.replace(tzinfo=None)
            stamps[place] = np.datetime64(utc - offset if offset is not None else utc, "us")
    return stamps, aware


class _Names(dateutil_parser.parserinfo):  # type: ignore[misc]
    """Months in English, German, French, Spanish, Italian and Dutch, whole or short."""

    JUMP: ClassVar = [*dateutil_parser.parserinfo.JUMP, "de"]
    MONTHS: ClassVar = [
        tuple(names.split())
        for names in (
            "Jan January Januar Jänner Janvier Janv Enero Ene Gennaio Gen Januari",
            "Feb February Februar Février Févr Fév Febrero Febbraio Februari",
            "Mar March März Mär Mrz Mars Marzo Maart Mrt",
            "Apr April Avril Avr Abril Abr Aprile",
            "May Mai Mayo Maggio Mag Mei",
            "Jun June Juni Juin Junio Giugno Giu",
            "Jul July Juli Juillet Juil Julio Luglio Lug",
            "Aug August Août Agosto Ago Augustus",
            "Sep Sept September Septembre Septiembre Settembre Set",
            "Oct October Oktober Okt Octobre Octubre Ottobre Ott",
            "Nov November Novembre Noviembre",
            "Dec December Dezember Dez Décembre Déc Diciembre Dic Dicembre",
        )
    ]


_NAMES = _Names()


@lru_cache(maxsize=1 << 16)
def _moment_of_words(text: str) -> datetime | None:
    if not _any(pc.match_substring_regex(pa.array([text], pa.string()), _WORDS)):
        return None
    try:
        default = datetime(2000, 1, 1)  # noqa: DTZ001
        name = re.search(r"\d\s+([A-Za-z]{2,5})$", text)
        if name is not None and name[1].upper() not in ("AM", "PM"):
            return _in_named_zone(text[: name.start(1)].strip(), name[1].upper())
        day = timedelta(days=bool(_MIDNIGHT.search(text)))  # dateutil knows no 24:00
        text = _MIDNIGHT.sub(" 00:00", text)
        return cast(datetime, dateutil_parser.parse(text, _NAMES, default=default)) + day
    except (ValueError, OverflowError):
        return None


def _in_named_zone(text: str, zone: str) -> datetime | None:
    """A time whose zone is written as CET or UTC; of other names nobody knows the offset."""
    moment = _moment_of_words(text)
    if moment is None or moment.tzinfo is not None or zone not in _OFFSET_HOURS:
        return None
    return moment.replace(tzinfo=timezone(timedelta(hours=_OFFSET_HOURS[zone])))


def _usual_marks(texts: pa.Array) -> pa.Array:
    """Write ISO 8601 with its marks, and a space for the no-break space that web portals like."""
    if _any(pc.match_substring_regex(texts, r"[\x{a0}\x{202f}]")):
        texts = pc.replace_substring_regex(texts, r"[\x{a0}\x{202f}]", " ")
    if _any(pc.match_substring_regex(texts, r"\d[hH]\d{2}$")):  # as French clocks show it
        texts = pc.replace_substring_regex(texts, r"(\d{1,2})[hH](\d{2})$", r"\1:\2")
    if _any(pc.match_substring_regex(texts, r"^\d{8}[T ]")):
        for pattern, marked in _RUN_TOGETHER:
            texts = pc.replace_substring_regex(texts, pattern, marked)
    if _any(pc.match_substring_regex(texts, r"T[^/\s]*/")):
        texts = pc.replace_substring_regex(texts, r"^([^/\s]*T[^/\s]*)/(\S+)$", r"\1 / \2")
    return texts


def _whole_numbers(column: pa.Array) -> pa.Array:
    """Unix times that pandas kept as doubles, because some are missing."""
    texts = [
        None if cell is None or math.isnan(cell) else f"{cell:.6f}".rstrip("0").rstrip(".")
        for cell in column.to_pylist()
    ]
    return pa.array(texts, pa.string())


def _range_starts(texts: pa.Array) -> pa.Array:
    """The first of two times in a cell."""
    two = pc.match_substring_regex(texts, _RANGE)
    if not _any(two):
        return texts
    found = pc.extract_regex(texts, _RANGE)
    return pc.if_else(two, pc.utf8_trim_whitespace(found.field("from")), texts)


def holds_ranges(texts: Iterable[str]) -> bool:
    """Whether cells hold two times each, the beginning and the end of their interval."""
    cells = _usual_marks(pa.array([text for text in texts if text.strip()], pa.string()))
    return len(cells) > 0 and _all(
        pc.or_(pc.match_substring_regex(cells, _RANGE), pc.match_substring_regex(cells, _CLOCKS))
    )


def _numbers(texts: pa.Array) -> Ints:
    filled = pc.if_else(pc.equal(pc.fill_null(texts, ""), ""), "0", texts)
    numbers: Ints = pc.fill_null(filled, "0").cast(pa.int64()).to_numpy(zero_copy_only=False)
    return numbers


def _any(mask: pa.Array) -> bool:
    return bool(pc.any(mask, min_count=0).as_py())


def _all(mask: pa.Array) -> bool:
    return bool(pc.all(mask, min_count=0).as_py())
