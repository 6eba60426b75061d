"""Types of numpy arrays, and units of time as whole microseconds.

Timestamps inside the product are ``datetime64[us]``; whole numbers compare exactly.
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

MICROSECONDS_PER_HOUR = 3_600_000_000
"""To turn differences of timestamps into hours."""


def one_if_equal(rows: Ints) -> Ints:
    """The first of row numbers that are all equal, else all of them.

    What is read by one row number is broadcast: the same numbers, without a copy per reading.
    """
    return rows[:1] if len(rows) and (rows == rows[0]).all() else rows
