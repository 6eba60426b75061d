-- The number of the newest label or withdrawal; 0 before the first.
SELECT greatest(max(label_id), max(withdrawn_as), 0) FROM anomaly.labels
