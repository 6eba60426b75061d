-- The staging table for the keys of verdicts whose reading was deleted.
CREATE TEMP TABLE staged_retractions (machine_id integer, utc_timestamp timestamptz) ON COMMIT DROP
