"""What people say of sites: prices of energy, shifts and holidays, for the views of ``bi``."""

from collections.abc import Mapping, Sequence
from datetime import date, time

from sqlalchemy import RowMapping

from anomaly.database.connection import Transaction

EVERY_SITE = ""
"""Stands for every site without prices, or shifts, of its own."""


def list_sites(transaction: Transaction) -> Sequence[RowMapping]:
    """Each site: ``site``, ``machines``, today's price and since when, and its shifts in words."""
    return transaction.rows("sites/list")


def site_names(transaction: Transaction) -> list[str]:
    """Names of all sites that machines have or had."""
    return [row["name"] for row in transaction.rows("sites/names")]


def list_prices(transaction: Transaction) -> Sequence[RowMapping]:
    """Prices as they were set: ``site``, ``valid_from``, ``price_per_kwh`` and ``currency``."""
    return transaction.rows("sites/prices")


def set_price(
    transaction: Transaction, site: str, valid_from: date, price_per_kwh: float, currency: str
) -> None:
    """Say what energy costs at a site from a local day on."""
    transaction.run(
        "sites/set_price",
        site=site,
        valid_from=valid_from,
        price_per_kwh=price_per_kwh,
        currency=currency,
    )


def remove_price(transaction: Transaction, site: str, valid_from: date) -> int:
    """Forget the price of a site that holds from a day on; return how many there were."""
    return transaction.run("sites/remove_price", site=site, valid_from=valid_from)


def replace_shifts(
    transaction: Transaction, site: str, shifts: Mapping[str, tuple[time, time]]
) -> None:
    """Give a site these shifts, each with its start and end by the local clock, and no others."""
    transaction.run("sites/clear_shifts", site=site)
    for name, (starts, ends) in shifts.items():
        transaction.run("sites/add_shift", site=site, name=name, starts=starts, ends=ends)


def replace_holidays(transaction: Transaction, calendars: Mapping[str, Mapping[date, str]]) -> None:
    """Write the holidays of calendars, each by its day, and forget all others."""
    days = [
        (calendar, day, name)
        for calendar, holidays in calendars.items()
        for day, name in holidays.items()
    ]
    transaction.run("sites/clear_holidays")
    transaction.run(
        "sites/add_holidays",
        calendars=[calendar for calendar, _, _ in days],
        days=[day for _, day, _ in days],
        names=[name for _, _, name in days],
    )
