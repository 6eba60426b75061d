"""What the rest of the product sees of a detector: scores of readings, and reasons."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import numpy.typing as npt
import pandas as pd


@dataclass(frozen=True)
class Scores:
    """A detector's verdicts on readings, in their order.

    Attributes
    ----------
    score : array of float
        0 to 1, higher is more abnormal.
    anomaly : array of bool
    reason : array of str or None
        What is abnormal, in words; None for readings that are no anomalies.
    expected_kw : array of float
        Usual power of the machine at that time, in kW; NaN where the detector knows none.
    """

    score: npt.NDArray[np.float64]
    anomaly: npt.NDArray[np.bool_]
    reason: npt.NDArray[np.object_]
    expected_kw: npt.NDArray[np.float64]


class Detector(Protocol):
    """A trained detector; a verdict depends only on a reading and the day before it."""

    name: ClassVar[str]
    """Its name in settings and in the registry."""

    @property
    def threshold(self) -> float:
        """The score above which a reading is an anomaly."""

    @property
    def reach(self) -> timedelta:
        """How far before a reading its verdict looks back; a day at most."""

    def score(self, measured: pd.DataFrame, wanted: npt.NDArray[np.bool_]) -> Scores:
        """Score the `wanted` rows of measured readings; the others are those before them."""

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """All that scoring needs, as arrays of numbers and text; the registry stores them."""

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Make the detector again that `arrays` came from; its scores are the same, bit for bit.

        Raises
        ------
        ArtefactError
            When this version of the product would misread the arrays.
        """
