"""Measure drift since a training: the population stability index per machine and signal."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from anomaly.arrays import Floats, Ints

BINS = 10
"""Bins of a signal: deciles, as is usual for the index."""
_LEAST_SHARE = 1e-3  # an empty bin counts as this share: its logarithm would be infinite


SIGNALS = ("power_kw", "power_diff", "flat_hours")
"""Columns of measured readings whose distributions are compared."""


@dataclass(frozen=True)
class Reference:
    """How the readings of a training were distributed, per machine and signal.

    Attributes
    ----------
    machine_ids : array of int, sorted
    edges : array (machine, signal, `BINS` - 1)
        Deciles; bins are closed on the right, and equal edges leave bins empty.
    counts : array (machine, signal, `BINS`)
        Training readings in each bin.
    signals : tuple of str
        Columns of measured readings, in the order of the arrays. An artefact keeps them, so that
        it is compared by its own, whatever a later version of the product compares.
    """

    machine_ids: Ints
    edges: Floats
    counts: Ints
    signals: tuple[str, ...] = SIGNALS

    @classmethod
    def of(cls, measured: pd.DataFrame) -> Self:
        """Distributions of measured readings, meter faults left out.

        Parameters
        ----------
        measured : DataFrame
            As `anomaly.readings.measuring.measure` returns it, sorted by machine.
        """
        machine_ids = np.unique(measured["machine_id"].to_numpy(np.int64))
        shape = (len(machine_ids), len(SIGNALS))
        edges, counts = np.zeros((*shape, BINS - 1)), np.zeros((*shape, BINS), np.int64)
        for row, values in enumerate(_values(measured, machine_ids, SIGNALS)):
            for k, known in enumerate(values):
                if len(known):
                    edges[row, k] = np.quantile(known, np.arange(1, BINS) / BINS)
                counts[row, k] = _counted(known, edges[row, k])
        return cls(machine_ids, edges, counts)

    def drift(self, measured: pd.DataFrame) -> pd.DataFrame:
        """Index of each machine and signal that both trainings know.

        Returns
        -------
        DataFrame
            ``machine_id``, ``signal`` and ``psi``. As usual for this index, below 0.1 is no
            drift and above 0.25 is a shift. It is an effect size: unlike the p of a test it
            does not depend on the number of readings.

        Examples
        --------
        >>> calm = {"machine_id": 1, "power_diff": 0.0, "flat_hours": 0.0}
        >>> before = pd.DataFrame(calm | {"power_kw": np.arange(100.0)})
        >>> after = before.assign(power_kw=before["power_kw"] + 50)
        >>> Reference.of(before).drift(after).round(1).values.tolist()
        [[1, 'power_kw', 3.1], [1, 'power_diff', 0.0], [1, 'flat_hours', 0.0]]
        """
        rows = []
        for row, values in enumerate(_values(measured, self.machine_ids, self.signals)):
            for k, signal in enumerate(self.signals):
                known = self.counts[row, k].sum() > 0 and len(values[k]) > 0
                if known:
                    found = _counted(values[k], self.edges[row, k])
                    rows.append((self.machine_ids[row], signal, psi(self.counts[row, k], found)))
        return pd.DataFrame(rows, columns=["machine_id", "signal", "psi"])

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The reference as plain arrays."""
        return {
            "machine_ids": self.machine_ids,
            "edges": self.edges,
            "counts": self.counts,
            "signals": np.array(self.signals),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Make the reference again that `arrays` came from."""
        # One that was written before names were kept has those of the first version.
        names = tuple(arrays["signals"].tolist()) if "signals" in arrays else SIGNALS
        return cls(arrays["machine_ids"], arrays["edges"], arrays["counts"], names)


def psi(before: npt.ArrayLike, after: npt.ArrayLike) -> float:
    """Population stability index of two histograms over the same bins.

    Examples
    --------
    >>> psi([50, 50], [50, 50])
    0.0
    >>> round(psi([50, 50], [90, 10]), 2)
    0.88
    """
    one, other = (_shares(np.asarray(counts, float)) for counts in (before, after))
    return float(((one - other) * np.log(one / other)).sum())


def _shares(counts: Floats) -> Floats:
    shares: Floats = np.maximum(counts / counts.sum(), _LEAST_SHARE)
    return shares


def _counted(values: Floats, edges: Floats) -> Ints:
    return np.bincount(np.searchsorted(edges, values, side="left"), minlength=BINS)


def _values(
    measured: pd.DataFrame, machine_ids: Ints, signals: tuple[str, ...]
) -> list[list[Floats]]:
    """Finite values of each machine and signal."""
    machines = measured["machine_id"].to_numpy()
    order = np.argsort(machines, kind="stable")
    starts = np.searchsorted(machines[order], machine_ids, side="left")
    ends = np.searchsorted(machines[order], machine_ids, side="right")
    columns = [measured[signal].to_numpy(float)[order] for signal in signals]
    return [
        [column[start:end][np.isfinite(column[start:end])] for column in columns]
        for start, end in zip(starts, ends, strict=True)
    ]
