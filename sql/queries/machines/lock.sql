-- One registration of machines at a time. This is a statement of its own, so that the next
-- statement sees what the registration before it has committed.
SELECT FROM anomaly.locks WHERE name = 'machines' FOR UPDATE
