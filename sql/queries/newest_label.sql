-- The newest thing that anybody said of any machine; 0 before the first.
SELECT coalesce(max(label_id), 0) FROM anomaly.labels
