-- One load into the meter table at a time; released with the transaction.
SELECT FROM anomaly.locks WHERE name = 'ingest' FOR UPDATE
