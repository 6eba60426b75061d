"""A trained model, and its form as plain arrays."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from anomaly.detectors.base import Detector
from anomaly.models.drift import Reference
from anomaly.settings import MeterSettings


@dataclass(frozen=True)
class Model:
    """A trained model: the detector, and what training saw of each machine.

    Attributes
    ----------
    detector : Detector
    profiles : DataFrame
        As `anomaly.readings.meter_faults.profile_machines` made it.
    reading_kind : str
    interval_minutes : int
    reference : Reference
        How the training readings were distributed, to measure drift.
    reading_unit : str
        As set for the training; empty: the own unit of the kind.
    """

    detector: Detector
    profiles: pd.DataFrame
    reading_kind: str
    interval_minutes: int
    reference: Reference
    reading_unit: str = ""

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """All that scoring needs, as arrays of numbers and text."""
        profiles = {name: self.profiles[name].to_numpy() for name in self.profiles.columns}
        profiles["machine_id"] = self.profiles.index.to_numpy(np.int64)
        return (
            _with_prefix("detector", self.detector.arrays())
            | _with_prefix("profiles", profiles)
            | _with_prefix("reference", self.reference.arrays())
        )

    def hardly_ever_flat(self, meter: MeterSettings) -> frozenset[int]:
        """Ids of machines on which a long flat run is a fault of the meter."""
        hardly = self.profiles["flat_share"] <= meter.stuck_flat_share
        return frozenset(self.profiles.index[hardly].tolist())

    @classmethod
    def from_arrays(
        cls,
        detector: type[Detector],
        arrays: Mapping[str, npt.NDArray[Any]],
        reading_kind: str,
        interval_minutes: int,
        reading_unit: str = "",
    ) -> Self:
        """Make the model again that `arrays` came from.

        Raises
        ------
        ArtefactError
            As `Detector.from_arrays`.
        """
        profiles = pd.DataFrame(_without_prefix("profiles", arrays)).set_index("machine_id")
        if "highest_kw" not in profiles:  # of a version that was trained before this was kept
            profiles["highest_kw"] = np.nan
        return cls(
            detector.from_arrays(_without_prefix("detector", arrays)),
            profiles,
            reading_kind,
            interval_minutes,
            Reference.from_arrays(_without_prefix("reference", arrays)),
            reading_unit,
        )


def _with_prefix(part: str, arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    return {f"{part}/{name}": array for name, array in arrays.items()}


def _without_prefix(
    part: str, arrays: Mapping[str, npt.NDArray[Any]]
) -> dict[str, npt.NDArray[Any]]:
    prefix = f"{part}/"
    return {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }
