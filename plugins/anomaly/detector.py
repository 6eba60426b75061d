"""What a detector is to the rest of the product: scores on readings, and why."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import numpy.typing as npt
import pandas as pd


@dataclass(frozen=True)
class Scores:
    """What a detector says of readings, in their order.

    Attributes
    ----------
    score : array of float
        0 to 1, higher is more abnormal.
    anomaly : array of bool
    reason : array of str or None
        In words, for anomalies.
    expected_kw : array of float
        The power usual for the machine at that time; NaN where the detector knows none.
    """

    score: npt.NDArray[np.float64]
    anomaly: npt.NDArray[np.bool_]
    reason: npt.NDArray[np.object_]
    expected_kw: npt.NDArray[np.float64]


class Detector(Protocol):
    """A trained detector; its verdicts depend on a reading and the day before it alone."""

    name: ClassVar[str]
    """What it is called in settings and in the registry."""

    @property
    def threshold(self) -> float:
        """The score above which a reading is an anomaly."""

    @property
    def reach(self) -> timedelta:
        """How far back a reading influences its verdicts; a day at most."""

    def score(self, measured: pd.DataFrame, wanted: npt.NDArray[np.bool_]) -> Scores:
        """Score the `wanted` rows of measured readings; the others are what precedes them."""

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """All that scoring needs, as arrays of numbers and text: what the registry keeps."""

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Make the detector again that `arrays` came from; its scores are the same, bit for bit."""
