-- End of the newest interval that has been judged, of any machine.
SELECT max(readings_to) AS readings_to FROM anomaly.scoring_runs
