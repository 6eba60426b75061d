"""Numbers and text as people read them: power, how far it is from usual, and foreign text."""

import math
import re
import unicodedata
from datetime import datetime
from decimal import Decimal

_STEERING = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # control, format and surrogate characters
# To the last @ of the line: an unescaped one, a space or :// may be part of the password.
_IN_URL = re.compile(r"(://[^\s:/@?]*):[^\n]*@")
# A quoted one to its closing quote, or to the end of the line without it; then to the next space.
_IN_QUERY = re.compile(
    r"""\b((?:ssl|pg)?pass(?:word|file)?)\s*=\s*(?:(['"])(?:\\.|(?!\2).)*(?:\2|$))?\S*""",
    re.IGNORECASE | re.MULTILINE,
)
_SAYS_LITTLE_KW = 0.1
"""Per cent of a usual power below this say little. Chosen: a small number makes any share large."""
_MOST_TIMES = 10
"""Power farther from usual than so many times the usual is given in kW, not in per cent. Chosen."""


def kilowatts(power: float) -> str:
    """Power in kW with three digits that count, and no more than three behind the point.

    Examples
    --------
    >>> [kilowatts(power) for power in (1234.5, 36.25, 0.0123, 0.0, -5.0)]
    ['1234', '36.2', '0.012', '0.000', '-5.00']
    """
    if not math.isfinite(power):
        return f"{power}"
    digits = 3 if abs(power) < 1 else max(0, 2 - math.floor(math.log10(abs(power))))
    return f"{power:.{digits}f}"


def beside_usual(measured: float, usual: float) -> str:
    """Measured beside usual power in kW, and how far apart the two numbers shown are.

    In per cent of the usual where that says something, else in kW.

    Examples
    --------
    >>> beside_usual(36.25, 16.3)
    '36.2 kW, 122 % above the usual 16.3 kW'
    >>> beside_usual(2.0, 0.05)
    '2.00 kW, 1.95 kW above the usual 0.050 kW'
    """
    power, normal = float(kilowatts(measured)), float(kilowatts(usual))
    apart, side = abs(power - normal), "above" if power >= normal else "below"
    if abs(normal) < _SAYS_LITTLE_KW or apart > _MOST_TIMES * abs(normal):
        by = f"{kilowatts(apart)} kW"
    else:
        by = f"{apart / abs(normal) * 100:.0f} %"
    return f"{kilowatts(measured)} kW, {by} {side} the usual {kilowatts(usual)} kW"


def counted(number: int, thing: str) -> str:
    """A number of things.

    Examples
    --------
    >>> counted(1, "machine"), counted(0, "machine")
    ('1 machine', '0 machines')
    """
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def printable(text: str) -> str:
    r"""Text in which whatever would steer a terminal, or end the line, is shown by its code.

    Examples
    --------
    >>> print(printable("Fan [new] 3 \x1b[31m"))
    Fan [new] 3 \x1b[31m
    """
    return "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character) in _STEERING
        else character
        for character in text
    )


def csv_cell(value: object) -> object:
    """A value as a cell of CSV; times in ISO 8601, lists separated by commas.

    A text that a spreadsheet would take for a formula begins with an apostrophe.

    Examples
    --------
    >>> [csv_cell(value) for value in ("Saw", "=1+1", -2.5)]
    ['Saw', "'=1+1", -2.5]
    """
    if value is None or isinstance(value, (int, float, Decimal)):
        return value
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, list):
        value = ", ".join(map(str, value))
    text = printable(str(value))
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def without_secrets(text: str) -> str:
    """Text without the passwords that a URL in it holds.

    Examples
    --------
    >>> without_secrets("postgresql://me:p@ss@host/db?sslmode=require&password=s3cret is wrong")
    'postgresql://me:***@host/db?sslmode=require&password=*** is wrong'
    >>> without_secrets("host=db password='two; words' user=me")
    'host=db password=*** user=me'
    """
    return _IN_QUERY.sub(r"\1=***", _IN_URL.sub(r"\1:***@", text))


def safe_line(text: str) -> str:
    r"""Text as one line for a terminal or a log: `printable`, and `without_secrets`.

    Examples
    --------
    >>> print(safe_line("machine 1 (Fan\nerror: call 555) has no site"))
    machine 1 (Fan\nerror: call 555) has no site
    """
    return printable(without_secrets(text))
