"""How many examples the property tests try: ``PROPERTIES=usual|full|long`` chooses."""

import os
from dataclasses import dataclass

from hypothesis import HealthCheck, Phase, settings


@dataclass(frozen=True)
class Profile:
    """Examples a property and a state machine, its steps, and whether they are always the same."""

    properties: int
    machine: int
    steps: int
    same: bool


PROFILES = {
    "usual": Profile(properties=3, machine=12, steps=12, same=True),
    "full": Profile(properties=6, machine=40, steps=12, same=True),
    "long": Profile(properties=400, machine=5_000, steps=20, same=False),
}
CHOSEN = PROFILES[os.environ.get("PROPERTIES", "usual")]

_PHASES = [phase for phase in Phase if phase is not Phase.shrink or "SHRINK" in os.environ]
_COMMON = {
    "phases": _PHASES,  # SHRINK=1 looks for a smaller failing example, for minutes
    "deadline": None,  # the database's speed is no property
    "derandomize": CHOSEN.same,
    "database": None,  # a failure prints how to reproduce it
    "print_blob": True,
    "suppress_health_check": [
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
    ],
}
PROPERTY = settings(max_examples=CHOSEN.properties, **_COMMON)
MACHINE = settings(max_examples=CHOSEN.machine, stateful_step_count=CHOSEN.steps, **_COMMON)
SIGNALS_MACHINE = settings(MACHINE, max_examples=max(8, CHOSEN.machine // 5))
