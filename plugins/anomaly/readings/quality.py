"""The quality of a reading: one word from an ordered list."""

from enum import IntEnum
from typing import Any

import pandas as pd

from anomaly.arrays import Ints


class Quality(IntEnum):
    """The quality of a reading; where several apply, the highest one is stored.

    The numbers are used in memory only. The database has an enum with the same names, perhaps
    in another order: a value that is added later is at the end of the enum.
    """

    OK = 0
    LEARNING = 1
    GAP = 2
    IRREGULAR = 3
    DUPLICATE = 4
    FIRST = 5
    ROLLOVER = 6
    STUCK = 7
    RESET = 8
    IMPOSSIBLE = 9
    CATCH_UP = 10
    CONTRADICTED = 11

    @property
    def is_meter_fault(self) -> bool:
        """Whether the meter is at fault, not the machine. Such readings get no score."""
        return self >= Quality.STUCK


QUALITY_NAMES = tuple(quality.name.lower() for quality in Quality)


def quality_column(quality: Ints) -> "pd.Categorical[Any]":
    """Qualities by the names that the database uses."""
    return pd.Categorical.from_codes(quality, dtype=pd.CategoricalDtype([*QUALITY_NAMES]))
