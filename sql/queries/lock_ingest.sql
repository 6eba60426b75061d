-- One load into the meter table at a time; released with the transaction.
SELECT pg_advisory_xact_lock(hashtext('anomaly.ingest'))
