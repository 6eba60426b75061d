-- The newest thing that anybody said of any machine, or took back; 0 before the first.
SELECT greatest(max(label_id), max(withdrawn_as), 0) FROM anomaly.labels
