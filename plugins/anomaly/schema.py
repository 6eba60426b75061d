"""The words everyone uses: the prototype's record, reading qualities, origins, result columns."""

from enum import IntEnum, StrEnum

MACHINES = tuple(f"machine_{n}" for n in range(1, 6))
OTHER_METERS = (
    "area_offices", "area_room_1", "area_room_2", "area_room_3", "area_room_4", "compressor",
    "cooling_aggregate", "cooling_pumps", "dishwasher", "ev", "grid_import", "pv_facade",
    "pv_roof", "refrigerator", "ventilation",
)  # fmt: skip
METERS = OTHER_METERS[:11] + MACHINES + OTHER_METERS[11:]
RECORD = ("utc_timestamp", "cet_cest_timestamp", *METERS)
"""The prototype's 22-field record, in its order."""


class Quality(IntEnum):
    """What is to be known about a reading; of several the highest stands.

    The order is that of the database's ``anomaly.reading_quality``.
    """

    OK = 0
    LEARNING = 1
    GAP = 2
    IRREGULAR = 3
    DUPLICATE = 4
    FIRST = 5
    ROLLOVER = 6
    STUCK = 7
    RESET = 8
    IMPOSSIBLE = 9
    CATCH_UP = 10
    CONTRADICTED = 11

    @property
    def is_meter_fault(self) -> bool:
        """Whether the meter, not the machine, is at fault: such readings get no score."""
        return self >= Quality.STUCK


QUALITY_NAMES = tuple(quality.name.lower() for quality in Quality)


class Origin(StrEnum):
    """Why a verdict was written."""

    LIVE = "live"
    LATE = "late"
    BACKFILL = "backfill"


VERDICT_COLUMNS = (
    "reading", "power_kw", "power_diff", "anomaly_score", "threshold", "anomaly", "reason",
    "quality", "model_version", "expected_kw",
)  # fmt: skip
"""What a verdict is: a function of the readings and the version map alone."""
