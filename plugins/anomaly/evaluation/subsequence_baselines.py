"""Baselines that judge the course of the last six hours: PCA of subsequences, and KMeansAD."""

from abc import abstractmethod
from collections.abc import Callable, Hashable
from datetime import timedelta

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

from anomaly.arrays import Bools, Floats
from anomaly.evaluation.baselines import Baseline, Verdict

SPAN = timedelta(hours=6)
"""Length of a subsequence: what `shape_6h` looks at, so that the two can be compared."""

_CLUSTERS = 20  # of KMeansAD, as in TSB-UAD's (Paparrizos et al., 2022)
_VARIANCE = 0.9  # share of it that the kept components of PCA explain. Chosen
_FEWEST = 2 * _CLUSTERS  # courses below which a machine is not judged

Distance = Callable[[Floats], Floats]
"""How far each course, shape (course, reading), lies from the usual ones."""


class SubsequenceBaseline(Baseline):
    """Learns the usual courses of each machine; a reading is judged by those it ends.

    Courses are scaled by the machine's own mean and deviation. One that has a gap in it is not
    judged.
    """

    cross_fitted = True

    @abstractmethod
    def fit_courses(self, courses: Floats) -> Distance:
        """Learn from courses, shape (course, reading)."""

    def learn(self, measured: pd.DataFrame) -> Verdict:
        """Learn each machine by itself."""
        machines: dict[Hashable, tuple[float, float, Distance]] = {}
        for machine, places in measured.groupby("machine_id").indices.items():
            rows = measured.iloc[places]
            power = rows["power_kw"].to_numpy()
            mean, spread = float(np.nanmean(power)), float(np.nanstd(power)) or 1.0
            courses, whole = self._courses(rows)
            if whole.sum() >= _FEWEST:
                distance = self.fit_courses((courses[whole] - mean) / spread)
                machines[machine] = (mean, spread, distance)

        def score(frame: pd.DataFrame) -> Floats:
            scores = np.full(len(frame), np.nan)
            for machine, places in frame.groupby("machine_id").indices.items():
                if machine not in machines:
                    continue
                mean, spread, distance = machines[machine]
                courses, whole = self._courses(frame.iloc[places])
                if whole.any():
                    ends = places[len(places) - len(whole) :][whole]
                    scores[ends] = distance((courses[whole] - mean) / spread)
            return scores

        return lambda frames: [score(frame) for frame in frames]

    def _courses(self, rows: pd.DataFrame) -> tuple[Floats, Bools]:
        """One machine's courses, one per reading that may end one, and which have no gap."""
        length = max(2, round(SPAN / self.meter.interval))
        power = rows["power_kw"].to_numpy(float)
        if len(power) < length:
            return np.zeros((0, length)), np.zeros(0, dtype=bool)
        hours = self.meter.interval / timedelta(hours=1)
        follows = np.abs(rows["elapsed_hours"].to_numpy(float) - hours) < hours / 2
        courses = sliding_window_view(power, length)
        steady = sliding_window_view(follows, length)[:, 1:].all(axis=1)
        return courses, steady & np.isfinite(courses).all(axis=1)


class SubsequencePCA(SubsequenceBaseline):
    """What the principal components of a machine's courses leave unexplained."""

    name = "subsequence PCA"

    def fit_courses(self, courses: Floats) -> Distance:
        """Keep the components that explain `_VARIANCE` of the variance."""
        pca = PCA(_VARIANCE, svd_solver="full").fit(courses)

        def misfit(found: Floats) -> Floats:
            again = pca.inverse_transform(pca.transform(found))
            return np.asarray(np.sqrt(np.mean((found - again) ** 2, axis=1)), dtype=float)

        return misfit


class KMeansCourses(SubsequenceBaseline):
    """KMeansAD: the distance of a course from the nearest of a machine's usual ones."""

    name = "KMeansAD"

    def fit_courses(self, courses: Floats) -> Distance:
        """Learn `_CLUSTERS` usual courses."""
        means = KMeans(_CLUSTERS, n_init=1, random_state=self.training.random_seed).fit(courses)

        def nearest(found: Floats) -> Floats:
            return np.asarray(means.transform(found).min(axis=1), dtype=float)

        return nearest
