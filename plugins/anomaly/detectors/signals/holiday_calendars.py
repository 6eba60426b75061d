"""Public holidays of a country or region, by the package ``holidays``: only training needs it."""

from collections.abc import Mapping
from datetime import date
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from anomaly.arrays import Ints
from anomaly.detectors.signals.usual_day import CALENDAR_DAYS, day_number
from anomaly.errors import SettingsError

_YEARS_AHEAD = 5
"""A version knows the holidays of so many years after its training, should nothing replace it."""
_DAYS_A_YEAR = 365.25


def holiday_days(calendar: str, first_year: int, last_year: int) -> tuple[int, ...]:
    """Days of public holidays, counted as `local_slots` counts days (see `public_holidays`)."""
    found = public_holidays(calendar, first_year, last_year)
    return tuple(sorted(day_number(day) for day in found))


@lru_cache(maxsize=256)
def public_holidays(calendar: str, first_year: int, last_year: int) -> Mapping[date, str]:
    """Names of public holidays by their day, both years included.

    Parameters
    ----------
    calendar : str
        Country by its ISO code, and a region behind a hyphen: ``"DE"``, ``"DE-BW"``.

    Raises
    ------
    SettingsError
        When there is no such country or region.
    """
    import holidays

    country, _, region = calendar.partition("-")
    known = holidays.list_supported_countries().get(country)
    try:
        if known is None:
            raise NotImplementedError(country)
        found = holidays.country_holidays(
            country, subdiv=region or None, years=range(first_year, last_year + 1)
        )
    except NotImplementedError as error:
        regions = f"; regions of {country}: {', '.join(known)}" if known else ""
        raise SettingsError(
            f"there is no holiday calendar {calendar!r}: write a country's ISO code, with a region"
            f" behind a hyphen, such as DE-BW, as ANOMALY_HOLIDAYS or as the machine's"
            f" `holidays`{regions}"
        ) from error
    return dict(found)


def numbered_calendars(calendars: npt.NDArray[np.str_], days: Ints) -> tuple[Ints, Ints]:
    """Number of each machine's calendar, and the holidays of all, as `UsualDay` keeps them.

    Parameters
    ----------
    calendars : array of str
        Of each machine; empty: none.
    days : array of int
        Days that training sees: holidays from the first on are known, and some years beyond.
    """
    names = sorted(set(calendars.tolist()) - {""})
    numbers = {name: number for number, name in enumerate(names)} | {"": -1}
    of_machine = np.array([numbers[name] for name in calendars.tolist()], np.int64)
    if not names or not len(days):
        return of_machine, np.empty(0, np.int64)
    first, last = (1970 + int(day / _DAYS_A_YEAR) for day in (days.min(), days.max()))
    found = [
        numbers[name] * CALENDAR_DAYS + day
        for name in names
        for day in holiday_days(name, first - 1, last + _YEARS_AHEAD)
    ]
    return of_machine, np.array(found, np.int64)
