"""What energy costs at a site, and its shifts: said by people, shown by the views of ``bi``."""

import re
from collections.abc import Sequence
from datetime import date, time

from anomaly.database.connection import OWNER, Database, Transaction
from anomaly.database.sites import (
    EVERY_SITE,
    remove_price,
    replace_shifts,
    set_price,
    site_names,
)
from anomaly.errors import SiteError
from anomaly.wording import printable

MOST = 1000.0
"""Highest price of a kWh, in any currency."""
_SHIFT = re.compile(r"(?P<name>.+?)\s+(?P<starts>\d?\d:\d\d)\s*-\s*(?P<ends>\d?\d:\d\d)")
_ENDS = {"24:00": "00:00"}


def change_price(
    database: Database, site: str | None, price_per_kwh: float, currency: str, since: date
) -> None:
    """Say what energy costs at a site from a local day on.

    Parameters
    ----------
    site : str or None
        Its name; None: every site without a price of its own on that day.

    Raises
    ------
    SiteError
        When no machine has that site, or the price or the currency makes no sense.
    """
    currency = currency.strip().upper()
    if not re.fullmatch("[A-Z]{3}", currency):
        raise SiteError(
            f"the currency is {printable(currency)!r}: write its three letters, such as EUR"
        )
    if not -MOST <= price_per_kwh <= MOST:
        raise SiteError(
            f"the price is {price_per_kwh}: write that of a kWh, from -{MOST:.0f} to {MOST:.0f}"
        )
    with database.transaction(OWNER) as transaction:
        name = known_site(transaction, site)
        set_price(transaction, name, since, price_per_kwh, currency)


def forget_price(database: Database, site: str | None, since: date) -> None:
    """Forget the price that holds from a day on.

    Raises
    ------
    SiteError
        When there is none.
    """
    with database.transaction(OWNER) as transaction:
        name = EVERY_SITE if site is None else site
        if not remove_price(transaction, name, since):
            raise SiteError(
                f"no price was set for {_described(name)} from {since} on: see `anomaly sites"
                " prices`"
            )


def change_shifts(database: Database, site: str | None, shifts: Sequence[str]) -> None:
    """Give a site these shifts and no others.

    Parameters
    ----------
    site : str or None
        Its name; None: every site without shifts of its own.
    shifts : sequence of str
        As ``early 06:00-14:00``; one that ends before it starts ends on the next day.

    Raises
    ------
    SiteError
        When no machine has that site, or a shift makes no sense.
    """
    parsed: dict[str, tuple[time, time]] = {}
    for text in shifts:
        name, starts, ends = _shift(text)
        if name in parsed:
            raise SiteError(f"the shift {printable(name)!r} is there twice: give each a name")
        parsed[name] = (starts, ends)
    with database.transaction(OWNER) as transaction:
        replace_shifts(transaction, known_site(transaction, site), parsed)


def _shift(text: str) -> tuple[str, time, time]:
    found = _SHIFT.fullmatch(text.strip())
    try:
        if found is None:
            raise ValueError
        starts = time.fromisoformat(found["starts"].zfill(5))
        ends = time.fromisoformat(_ENDS.get(found["ends"], found["ends"]).zfill(5))
    except ValueError:
        raise SiteError(
            f"{printable(text)!r} is no shift: write its name, start and end, as"
            ' "early 06:00-14:00"'
        ) from None
    return found["name"], starts, ends


def known_site(transaction: Transaction, site: str | None) -> str:
    """Name of a site that a machine has or had; of None, what stands for every site.

    Raises
    ------
    SiteError
        When no machine has that site.
    """
    if site is None:
        return EVERY_SITE
    names = site_names(transaction)
    if site and site in names:
        return site
    known = ", ".join(repr(printable(name)) for name in names[:10] if name)
    hint = f"write one of {known}" if 0 < len(names) <= 10 else "see `anomaly sites list`"
    raise SiteError(
        f"no machine has the site {printable(site)!r}: {hint}, or give it to one by `anomaly"
        " machines set --site`"
    )


def _described(site: str) -> str:
    return f"the site {printable(site)!r}" if site else "every site"
