-- One publication or promotion at a time; released with the transaction.
SELECT pg_advisory_xact_lock(hashtext('anomaly.publishing')), clock_timestamp() AS published_at
