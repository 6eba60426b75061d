-- One sender at a time makes messages; sending itself goes on beside it.
SELECT FROM anomaly.locks WHERE name = 'alerts' FOR UPDATE
