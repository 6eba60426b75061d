"""Detectors: what makes a reading abnormal, and by how much.

`base` says what a detector is to the rest of the product. There are two: `prototype` is the
prototype's forest over ``power_diff``, and `signals` is the default, a forest per signal of each
machine. `step_table` compiles a forest to arrays, and `quantiles` helps the training.

A detector is a pure function of measured readings. This room may import `anomaly.readings` and the
words that every room uses. It knows nothing of models,
databases, windows to score or incidents. Scoring must not import scikit-learn: only modules that
train do.
"""
