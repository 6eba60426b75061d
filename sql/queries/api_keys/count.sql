-- How many keys there have ever been.
SELECT count(*) FROM anomaly.api_keys
