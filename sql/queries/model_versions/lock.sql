-- One training at a time. This is a statement of its own, so that the next statement sees what
-- the training before it has committed.
SELECT FROM anomaly.locks WHERE name = 'versions' FOR UPDATE
