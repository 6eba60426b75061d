"""``anomaly sites``: what energy costs at a site, and its shifts."""

from datetime import UTC, date, datetime
from typing import Annotated, Any

import typer

from anomaly.cli.console import AsCsv, AsJson, connect, print_json, print_list, say
from anomaly.database.connection import SCORER
from anomaly.database.sites import list_prices, list_sites
from anomaly.errors import SiteError
from anomaly.operations.site_changes import change_price, change_shifts, forget_price
from anomaly.wording import counted

sites_app = typer.Typer(help="Sites: prices of energy and shifts.", no_args_is_help=True)

_SITES = ("site", "machines", "price_per_kwh", "currency", "price_since", "shifts")
_PRICES = ("site", "valid_from", "price_per_kwh", "currency")

Site = Annotated[str | None, typer.Argument(help="Name of the site; or write --all.")]
Every = Annotated[bool, typer.Option("--all", help="Every site without one of its own.")]


@sites_app.command("list")
def sites_list(as_json: AsJson = False, as_csv: AsCsv = False) -> None:
    """List the sites that machines have, with today's price and their shifts.

    Example: anomaly sites list
    """
    database, _ = connect()
    with database.transaction(SCORER, read_only=True) as transaction:
        rows = [dict(row) for row in list_sites(transaction)]
    _write_prices_out(rows, as_json)
    print_list("Sites", rows, _SITES, as_json=as_json, as_csv=as_csv)


@sites_app.command("prices")
def sites_prices(as_json: AsJson = False, as_csv: AsCsv = False) -> None:
    """List the prices of energy as they were set, newest first. An empty site means every site.

    Example: anomaly sites prices
    """
    database, _ = connect()
    with database.transaction(SCORER, read_only=True) as transaction:
        rows = [dict(row) for row in list_prices(transaction)]
    _write_prices_out(rows, as_json)
    print_list("Prices of a kWh", rows, _PRICES, as_json=as_json, as_csv=as_csv)


@sites_app.command("price")
def sites_price(
    site: Site = None,
    every: Every = False,
    price: Annotated[float | None, typer.Option(help="Price of a kWh.")] = None,
    currency: Annotated[str, typer.Option(help="Its three letters, ISO 4217.")] = "EUR",
    since: Annotated[
        str | None,
        typer.Option("--from", help="First local day; default: today in UTC."),
    ] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Forget the price of that day.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say what energy costs at a site from a local day on, until the next price of the site.

    Example: anomaly sites price "Hall 2" --price 0.21 --currency EUR --from 2026-01-01
    """
    place = _place(site, every)
    day = _day(since)
    if remove == (price is not None):
        raise SiteError("write --price, or --remove to forget the price of a day")
    database, _ = connect()
    if price is None:
        forget_price(database, place, day)
    else:
        change_price(database, place, price, currency, day)
    told = {"site": place or "", "valid_from": day.isoformat(), "price_per_kwh": price}
    if as_json:
        return print_json(told | {"currency": None if remove else currency.strip().upper()})
    where = f"site {place}" if place is not None else "every site without a price of its own"
    if price is None:
        say(f"{where}: the price from {day} on was removed")
    else:
        say(f"{where}: {price:g} {currency.strip().upper()} per kWh from {day} on")


@sites_app.command("shifts")
def sites_shifts(
    names: Annotated[
        list[str] | None,
        typer.Argument(help='The site (none with --all), then its shifts, as "early 06:00-14:00".'),
    ] = None,
    every: Every = False,
    as_json: AsJson = False,
) -> None:
    """Give a site these shifts, by its machines' clocks, and no others; none: it has no shifts.

    Example: anomaly sites shifts "Hall 2" "early 06:00-14:00" "late 14:00-22:00" "night 22:00-6:00"
    """
    given = list(names or ())
    place = _place(None if every or not given else given.pop(0), every)
    database, _ = connect()
    change_shifts(database, place, given)
    if as_json:
        return print_json({"site": place or "", "shifts": given})
    where = f"site {place}" if place is not None else "every site without shifts of its own"
    say(f"{where}: {counted(len(given), 'shift')}")


def _write_prices_out(rows: list[dict[str, Any]], as_json: bool) -> None:
    """Show prices to people with every digit; a table rounds numbers to one."""
    for row in rows:
        if row["price_per_kwh"] is not None and not as_json:
            row["price_per_kwh"] = f"{row['price_per_kwh']:g}"


def _place(site: str | None, every: bool) -> str | None:
    """The site that is meant; None: every site."""
    if every == (site is not None):
        raise SiteError("write one site, or --all for every site without one of its own")
    return site


def _day(text: str | None) -> date:
    if text is None:
        return datetime.now(UTC).date()
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise SiteError(f"--from is {text!r}: write a day as 2026-01-31") from None
