"""Evaluation: how well detectors find faults, in figures that can be compared over the years.

`ordinary_days` and `fault_injection` write known faults into real readings, and `alert_matching`
counts what became of them. `machine_habits` and `physical_faults` are a second injector, of what
breaks, slips or is left on in a plant. These five are frozen by their outputs
(``tests/unit/test_frozen_judge.py``). `train_test_weeks` says what is trained on and judged,
`thresholds` keeps an alert budget, `protocol` runs contenders, `outcomes` and `report` hold the
results. Contenders are `our_detector`, `baselines` and `subsequence_baselines`. `labelled_readings`
judges on labels instead of injected faults, `reading_sets` reads the files of several plants and
`sets_report` shows them side by side, `evaluate` starts from a deployment, from sets or from
labels, and `vus_pr` runs beside the product.

This room may import all rooms below: loading, scoring, incidents, database, models, detectors,
readings, and the words that every room uses. The injector and the judge must never look at a
detector. `anomaly.lifecycle` uses this room for its gate; this room must not import lifecycle,
operations or entry points.
"""
