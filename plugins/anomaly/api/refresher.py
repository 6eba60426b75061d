"""Call a function every few seconds, in a thread, and know what went wrong the last time."""

import logging
import threading
from collections.abc import Callable

from anomaly.database.explained_errors import EXPLAINED, explained
from anomaly.errors import AnomalyError
from anomaly.wording import without_secrets

REFRESH_SECONDS = 5.0
"""How soon a promotion or a new key counts. Chosen: reading either takes some ms."""

log = logging.getLogger("anomaly.api")


class Refresher:
    """A thread that calls a function, and logs what goes wrong when that is new."""

    def __init__(self, function: Callable[[], None]) -> None:
        self._function = function
        self._trouble: str | None = None
        self._first = threading.Event()

    def start(self) -> None:
        """Begin; the thread ends with the process."""
        threading.Thread(target=self._run, name="anomaly-api-refresh", daemon=True).start()

    def trouble(self, wait_seconds: float = 0.0) -> str:
        """What went wrong the last time; empty: nothing. The first time may be waited for."""
        if not self._first.wait(wait_seconds):
            return "it is still starting"
        return self._trouble or ""

    def _run(self) -> None:
        stop = threading.Event()
        while not stop.wait(REFRESH_SECONDS if self._first.is_set() else 0.0):
            self._call()
            self._first.set()

    def _call(self) -> None:
        before, self._trouble = self._trouble, self._found()
        if self._trouble and self._trouble != before:
            log.error("%s", self._trouble)
        elif before and not self._trouble:
            log.warning("what was wrong is over")

    def _found(self) -> str:
        try:
            self._function()
        except (AnomalyError, *EXPLAINED) as error:
            return without_secrets(str(explained(error)))
        except Exception as error:  # a thread that ends would let revoked keys live on
            log.exception("the API cannot look after itself")
            return f"{type(error).__name__}, which is a fault of the product: see the log"
        return ""
