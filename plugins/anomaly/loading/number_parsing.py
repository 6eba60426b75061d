"""Numbers in a file's texts: missing words, decimal marks, thousands."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from anomaly.arrays import Bools, Floats

MISSING = frozenset({
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN",
    "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null",
})  # fmt: skip
"""Words for a missing reading: those that pandas knows."""

_MISSING = pa.array(sorted(MISSING), pa.string())
_NUMBER = r"^[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?$"
_SPACES = ("'", " ", r"\x{2019}", r"\x{a0}", r"\x{202f}")


def _grouped(point: str, comma: str) -> str:
    """Thousands that are marked all in one way, for a decimal `point` where `comma` may group."""
    groups = "|".join(rf"(?:{mark}[0-9]{{3}})+" for mark in (comma, *_SPACES))
    return rf"^[+-]?[1-9][0-9]{{0,2}}(?:{groups})(?:{point}[0-9]*)?$"


_GROUPED = {".": _grouped(r"\.", ","), ",": _grouped(",", r"\.")}
_GROUP_MARKS = {".": r"[, '\x{2019}\x{a0}\x{202f}]", ",": r"[. '\x{2019}\x{a0}\x{202f}]"}

_SPACED = re.compile("(?<=\\d)[ '\u2019\u00a0\u202f](?=\\d{3})")
_MARKED = re.compile(r"[+-]?\d[\d.,]*[.,][\d.,]*(?:e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_ONE_GROUP = re.compile(r"[+-]?[1-9]\d{0,2}[.,]\d{3}", re.ASCII)
_GROUPS = re.compile(r"[+-]?\d{1,3}([.,])\d{3}(?:\1\d{3})+", re.ASCII)
_BOTH = re.compile(r"[+-]?\d{1,3}(?:([.,])\d{3})+(?!\1)([.,])\d*", re.ASCII)


class Decimal(StrEnum):
    """What stands before the decimals of a number."""

    POINT = "."
    COMMA = ","


@dataclass(frozen=True)
class Evidence:
    """What some numbers tell of the decimal mark.

    Attributes
    ----------
    point, comma : str or None
        A number that can only be read with this decimal mark.
    either : str or None
        A number that can be read both ways, such as 1.234.
    """

    point: str | None = None
    comma: str | None = None
    either: str | None = None


def evidence(texts: Iterable[str]) -> Evidence:
    """Look for numbers that tell the decimal mark."""
    found: dict[str, str] = {}
    for text in texts:
        cell = text.strip()
        plain = _SPACED.sub("", cell)
        if not _MARKED.fullmatch(plain):
            continue
        if plain != cell:  # spaces mark the thousands, so that a comma or point does not
            if plain.count(".") + plain.count(",") == 1:
                found.setdefault("point" if "." in plain else "comma", cell)
            continue
        if both := _BOTH.fullmatch(cell):
            mark = both[2]
        elif groups := _GROUPS.fullmatch(cell):
            mark = "," if groups[1] == "." else "."
        elif _ONE_GROUP.fullmatch(cell):
            found.setdefault("either", cell)
            continue
        elif cell.count(".") + cell.count(",") == 1:
            mark = "." if "." in cell else ","
        else:
            continue
        found.setdefault("point" if mark == "." else "comma", cell)
    return Evidence(**found)


def parse_numbers(texts: pa.Array, decimal: Decimal) -> tuple[pa.Array, Floats, Bools]:
    """Read texts as numbers.

    Parameters
    ----------
    texts : pyarrow.Array of strings, or of numbers

    Returns
    -------
    plain : pyarrow.Array
        The numbers as they are copied into a table: texts with a decimal point, or numbers.
    values : array of float
        NaN where there is no reading, or none that can be read.
    bad : array of bool
        Texts that are no number, and infinities.
    """
    if not pa.types.is_string(texts.type):
        values = np.array(
            texts.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), copy=True
        )
        return texts, values, np.isinf(values)
    trimmed = pc.utf8_trim_whitespace(texts)
    plain = pc.if_else(pc.is_in(trimmed, _MISSING), None, trimmed)
    plain = _with_point(plain, decimal)
    try:
        values = plain.cast(pa.float64())
        odd = pc.or_(pc.is_inf(values), pc.is_nan(values))
        if not pc.any(odd, min_count=0).as_py():
            array = values.to_numpy(zero_copy_only=False)
            return plain, array, np.zeros(len(array), dtype=bool)
    except pa.ArrowInvalid:
        pass
    good = pc.fill_null(pc.match_substring_regex(plain, _NUMBER), True)
    read = pc.if_else(good, pc.utf8_ltrim(plain, "+"), None)
    array = np.array(read.cast(pa.float64()).to_numpy(zero_copy_only=False), copy=True)
    bad = ~good.to_numpy(zero_copy_only=False) | np.isinf(array)
    array[bad] = np.nan
    return read, array, bad


def _with_point(texts: pa.Array, decimal: Decimal) -> pa.Array:
    """Take the marks of thousands out, and write a decimal point."""
    other = pc.match_substring_regex(texts, _GROUP_MARKS[decimal])
    if pc.any(other, min_count=0).as_py():
        grouped = pc.fill_null(pc.match_substring_regex(texts, _GROUPED[decimal]), False)
        without = pc.replace_substring_regex(texts, _GROUP_MARKS[decimal], "")
        texts = pc.if_else(grouped, without, texts)
        if decimal is Decimal.COMMA:
            # A point that is no mark of thousands must not become a decimal point.
            left = pc.fill_null(pc.match_substring(texts, "."), False)
            texts = pc.if_else(left, pc.binary_join_element_wise(texts, "?", ""), texts)
    return pc.replace_substring(texts, ",", ".") if decimal is Decimal.COMMA else texts


def fault(text: str, decimal: Decimal) -> tuple[str, str]:
    """What is wrong with a text that is no number, and the next step."""
    is_read = re.match(_NUMBER, text) and not (decimal is Decimal.COMMA and "." in text)
    if is_read or re.fullmatch(r"[+-]?inf(inity)?", text, re.IGNORECASE):
        return f"{text!r} is infinite", "leave it empty if there is no reading"
    if re.fullmatch(r"[+-]?[\d.,]+", text, re.ASCII):
        other = "." if decimal is Decimal.COMMA else ","
        name = {".": "point", ",": "comma"}
        return (
            f"{text!r} is not a number with a decimal {name[decimal.value]}",
            f"write all numbers the same way, or say --decimal {other!r} if that is their decimal"
            " mark",
        )
    return f"{text!r} is not a number", "leave it empty if there is no reading"
