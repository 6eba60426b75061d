-- The staging table for verdicts that replace others.
CREATE TEMP TABLE staged_results (LIKE anomaly.anomaly_results) ON COMMIT DROP
