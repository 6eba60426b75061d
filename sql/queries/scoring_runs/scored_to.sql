-- End of everything scored so far; empty when nothing is.
SELECT max(written_to) FROM anomaly.scoring_runs WHERE window_start < window_end
