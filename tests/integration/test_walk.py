"""The walk of a reading through the house goes down only: no room calls a room above it."""

import sys
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType

import anomaly
from anomaly.database.connection import Database
from anomaly.scoring.reconciling import Reconciler
from anomaly.scoring.scorer import Scorer
from anomaly.scoring.ticks import score_tick
from anomaly.settings import Settings
from anomaly.windows import Window
from deployment import TESTS, at, counters, insert, score, train

PACKAGE = str(Path(anomaly.__file__).parent)
DAY = 96


def floors() -> dict[str, int]:
    """On which floor each room is, by the import contracts; 0 is the lowest."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    contracts = project["tool"]["importlinter"]["contracts"]
    (layers,) = (c["layers"] for c in contracts if c["name"] == "Rooms import downward only")
    return {
        room.strip().removeprefix("anomaly."): floor
        for floor, layer in enumerate(reversed(layers))
        for room in layer.split("|")
    }


def room_of(code: CodeType) -> str | None:
    if not code.co_filename.startswith(PACKAGE):
        return None
    return Path(code.co_filename[len(PACKAGE) + 1 :]).parts[0].removesuffix(".py")


@contextmanager
def calls_between_rooms() -> Iterator[set[tuple[str, str, str]]]:
    """Collect which room calls which, and what, in all threads that are started meanwhile."""
    found: set[tuple[str, str, str]] = set()

    def note(frame: FrameType, event: str, argument: object) -> None:
        callee = room_of(frame.f_code) if event == "call" else None
        if callee is None:
            return
        caller = frame.f_back
        while caller and room_of(caller.f_code) is None:
            caller = caller.f_back
        if caller:
            name = f"{frame.f_code.co_name} ({Path(frame.f_code.co_filename).name})"
            found.add((str(room_of(caller.f_code)), callee, name))

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        yield found
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


def test_scoring_reconciling_and_ticks_call_downward_only(
    database: Database, settings: Settings
) -> None:
    insert(database, counters(10 * DAY))
    train(database, settings, end=8 * DAY)
    score(database, settings, 0, DAY)
    interval = Window(at(10 * DAY - 1), at(10 * DAY))

    with calls_between_rooms() as calls:
        score(database, settings, 0, DAY + 4)
        score_tick(Scorer(database, settings), interval, TESTS)
        Reconciler(database, settings).reconcile(Window(at(0), at(2 * DAY)), TESTS)

    order = floors()
    upward = {c for c in calls if order.get(c[0], 0) < order.get(c[1], 0)}
    assert upward == set()
    assert {"scoring", "incidents", "database", "models", "detectors", "readings"} <= {
        callee for _, callee, _ in calls
    }
