-- One publication or promotion at a time; released with the transaction. The moment is
-- taken once the lock is held.
WITH held AS MATERIALIZED (
    SELECT FROM anomaly.locks WHERE name = 'publishing' FOR UPDATE
)
SELECT clock_timestamp() AS published_at FROM held
