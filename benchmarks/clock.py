"""Seconds of a scoring in parts, taken within the process that scores.

Nothing but the standard library is imported before the clock runs.
"""

import time
from collections.abc import Callable
from typing import Any

INNER = ("read", "transform", "score", "write")


class Clock:
    """Seconds spent in methods, without those spent in timed methods that they call.

    Attributes
    ----------
    taken : dict of str to float
        Seconds a part.
    published : float
        When the last publication had been committed, in seconds since the epoch; 0 before.
    """

    def __init__(self) -> None:
        self.taken: dict[str, float] = {}
        self.published = 0.0
        self._inner = [0.0]

    def time(self, owner: object, method: str, part: str) -> None:
        """Count what a method takes as `part`."""
        original: Callable[..., Any] = getattr(owner, method)
        self.taken.setdefault(part, 0.0)

        def timed(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            self._inner.append(0.0)
            try:
                return original(*args, **kwargs)
            finally:
                whole = time.perf_counter() - began
                self.taken[part] += whole - self._inner.pop()
                self._inner[-1] += whole
                if part == "write":
                    self.published = time.time()

        setattr(owner, method, timed)

    def watch(self) -> None:
        """Import what the task of `score_readings` imports, and time what it does from now on.

        Adds the parts ``imports`` and `INNER`; ``bookkeeping`` is what else a tick does.
        """
        began = time.perf_counter()
        from anomaly.database.meter_table import MeterSource
        from anomaly.database.migrations import check_migrated  # noqa: F401
        from anomaly.scoring import ticks
        from anomaly.scoring.judging import WindowJudge
        from anomaly.scoring.publishing import Publisher
        from anomaly.scoring.scorer import Scorer  # noqa: F401
        from anomaly.scoring.window_reader import WindowReader

        self.taken["imports"] = time.perf_counter() - began
        for owner, method, part in (
            (MeterSource, "read", "read"),
            (WindowReader, "read", "transform"),
            (WindowJudge, "verdicts", "score"),
            (Publisher, "publish", "write"),
            (ticks, "score_tick", "bookkeeping"),
        ):
            self.time(owner, method, part)
