"""The prototype's record: one row per quarter-hour with 22 fields."""

MACHINES = tuple(f"machine_{n}" for n in range(1, 6))
OTHER_METERS = (
    "area_offices", "area_room_1", "area_room_2", "area_room_3", "area_room_4", "compressor",
    "cooling_aggregate", "cooling_pumps", "dishwasher", "ev", "grid_import", "pv_facade",
    "pv_roof", "refrigerator", "ventilation",
)  # fmt: skip
METERS = OTHER_METERS[:11] + MACHINES + OTHER_METERS[11:]
RECORD = ("utc_timestamp", "cet_cest_timestamp", *METERS)
"""The prototype's 22-field record, in its order."""
