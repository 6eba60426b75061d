"""Evaluation: faults written into real readings, a judge that is frozen, and the baselines."""
