"""Settings under which a forest is trained in a blink."""

SMALL = {
    "detector": "prototype",
    "forest_trees": 20,
    "forest_max_samples": 64,
    "training_min_days": 1,
}
