-- Where an attempt lays the keys of verdicts whose reading is gone.
CREATE TEMP TABLE staged_retractions (machine_id integer, utc_timestamp timestamptz) ON COMMIT DROP
