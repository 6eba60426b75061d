"""A forest over one signal as a step table: the same scores, bit for bit, and how fast.

Beside it what else runs a forest, where ``requirements-bench.txt`` is installed.
"""

import importlib.util
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.ensemble import IsolationForest

from anomaly.detectors.prototype import PrototypeDetector, fit_forest
from anomaly.detectors.step_table import StepTable, compile_forest
from anomaly.settings import load_settings
from benchmarks.figures import Figure, saying, seconds

NUMBERS = 1_000_000
TREES = {"signals": 60, "prototype": 350}
FASTER, MOST_NANOSECONDS = 100, 200

_SHOWN = 10_000  # numbers that the slower libraries are given
Floats = npt.NDArray[np.float64]


def measure(numbers: int = NUMBERS) -> list[Figure]:
    """Compile, compare on a million numbers, time."""
    random = np.random.default_rng(0)
    figures = []
    for name, trees in TREES.items():
        title = f"forest of {trees} trees over one number"
        with saying(title):
            forest = IsolationForest(n_estimators=trees, random_state=1)
            forest.fit(random.standard_t(3, (50_000, 1)))
            figures += _measure(title, forest, adversarial(forest, numbers, random))
        if name == "signals":
            figures += _others(title, forest, random.standard_t(3, _SHOWN))
    with saying("the prototype's forest, machine by machine"):
        figures.append(_machines(numbers))
    return figures


def adversarial(forest: IsolationForest, count: int, random: np.random.Generator) -> Floats:
    """Every threshold, its float32 neighbours, NaN, the largest floats, and random numbers."""
    thresholds = np.concatenate([tree.tree_.threshold for tree in forest.estimators_])
    near = thresholds.astype(np.float32)
    around = [np.nextafter(near, np.float32(side)) for side in (np.inf, -np.inf)]
    most = float(np.finfo(np.float32).max)
    odd = [0.0, -0.0, 1e-45, -1e-45, most, -most, np.nan]
    chosen = np.concatenate([thresholds, near, *around, odd]).astype(np.float64)
    if len(chosen) > count:
        chosen = random.choice(chosen, count, replace=False)
    drawn = random.standard_t(2, count - len(chosen)) * 10 ** random.uniform(
        -3, 3, count - len(chosen)
    )
    return random.permutation(np.concatenate([chosen, drawn]))


def differing(forest: IsolationForest, table: StepTable, numbers: Floats) -> tuple[int, float]:
    """On how many numbers score or label differ by any bit; and seconds of `score_samples`.

    Infinities are compared with the largest floats: scikit-learn refuses them.
    """
    taken: list[Floats] = []
    time = seconds(lambda: taken.append(forest.score_samples(numbers[:, None])))
    theirs, ours = taken[0], table.score_samples(numbers)
    differ = (theirs.view(np.int64) != ours.view(np.int64)) | (
        (forest.predict(numbers[:, None]) < 0) != (ours - forest.offset_ < 0)
    )
    most = float(np.finfo(np.float32).max)
    edges = np.array([most, -most])
    beyond = table.score_samples(np.array([np.inf, -np.inf])) != forest.score_samples(
        edges[:, None]
    )
    return int(differ.sum() + beyond.sum()), time


def _measure(title: str, forest: IsolationForest, numbers: Floats) -> list[Figure]:
    tables: list[StepTable] = []
    compiling = seconds(lambda: tables.append(compile_forest(forest)))
    (table,) = tables
    wrong, slow = differing(forest, table, numbers)
    fast = min(seconds(lambda: table.score_samples(numbers)) for _ in range(5))
    each, base = (taken / len(numbers) * 1e9 for taken in (fast, slow))
    baseline = f"`score_samples`, {base:,.0f} ns"
    size = (table.keys.nbytes + table.scores.nbytes) / 1024
    return [
        Figure.at_least(f"{title}: a reading", each, "ns", baseline, base, FASTER),
        Figure.below(f"{title}: a reading", each, "ns", MOST_NANOSECONDS),
        Figure.below(f"{title}: of {len(numbers):,} numbers differ", wrong, "", 0),
        Figure(f"{title}: compile time", compiling, "s"),
        Figure(f"{title}: size", size, "KiB"),
    ]


def _machines(count: int) -> Figure:
    """The forest with a column per machine, on machines that it knows and one that it does not."""
    random = np.random.default_rng(3)
    readings = pd.DataFrame({"machine_id": random.integers(1, 6, 20_000)})
    readings["power_diff"] = random.standard_t(3, 20_000) * readings["machine_id"]
    settings = load_settings({})
    pipeline = fit_forest(readings, settings.training)
    detector = PrototypeDetector.compile(pipeline, settings.meter)
    asked = pd.DataFrame({"machine_id": random.integers(1, 7, count)})
    asked["power_diff"] = adversarial(pipeline[-1], count, random)
    ours = detector.score(asked, np.ones(count, dtype=bool))
    theirs = -pipeline.score_samples(asked)
    wrong = (theirs.view(np.int64) != ours.score.view(np.int64)) | (
        (theirs > detector.threshold) != ours.anomaly
    )
    title = f"5 machines and one never seen: of {count:,} numbers differ"
    return Figure.below(title, int(wrong.sum()), "", 0)


# What else runs a forest ------------------------------------------------------


def _others(title: str, forest: IsolationForest, numbers: Floats) -> list[Figure]:
    figures = []
    rows = numbers[:, None]
    for name, (needed, make) in _OTHERS.items():
        if missing := [one for one in needed if importlib.util.find_spec(one) is None]:
            reason = f"not installed: {', '.join(missing)}"
            figures.append(Figure.left_out(f"{title}: {name}", reason))
            continue
        with saying(name):
            score = make(forest, rows)
            score(rows[:100])
            each = seconds(lambda: score(rows)) / len(rows) * 1e9  # noqa: B023
        figures.append(Figure(f"{title}: {name}, a reading", each, "ns"))
    return figures


Score = Callable[[Floats], object]


def _scikit_learn(forest: IsolationForest, rows: Floats) -> Score:
    return lambda asked: forest.score_samples(asked)


def _onnxruntime(forest: IsolationForest, rows: Floats) -> Score:
    from onnxruntime import InferenceSession
    from skl2onnx import to_onnx

    model = to_onnx(forest, rows[:1].astype(np.float32), target_opset={"": 15, "ai.onnx.ml": 3})
    session = InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda asked: session.run(None, {name: asked.astype(np.float32)})


def _isotree(forest: IsolationForest, rows: Floats) -> Score:
    import isotree

    grown = isotree.IsolationForest(
        ntrees=len(forest.estimators_), sample_size=256, ndim=1, nthreads=1
    ).fit(rows)
    return lambda asked: grown.predict(asked)


def _treelite(forest: IsolationForest, rows: Floats) -> Score:
    import treelite

    model = treelite.sklearn.import_model(forest)
    return lambda asked: treelite.gtil.predict(model, asked, nthread=1)


_OTHERS: dict[str, tuple[tuple[str, ...], Callable[[IsolationForest, Floats], Score]]] = {
    "scikit-learn": (("sklearn",), _scikit_learn),
    "onnxruntime": (("onnxruntime", "skl2onnx"), _onnxruntime),
    "isotree": (("isotree",), _isotree),
    "treelite": (("treelite",), _treelite),
}
