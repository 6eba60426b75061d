-- One publication or promotion at a time; the lock is released with the transaction. The time is
-- taken after the lock is held.
WITH held AS MATERIALIZED (
    SELECT FROM anomaly.locks WHERE name = 'publishing' FOR UPDATE
)
SELECT clock_timestamp() AS published_at FROM held
