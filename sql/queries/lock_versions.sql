-- One training at a time. A statement of its own: the next one then sees what the
-- training before has committed.
SELECT FROM anomaly.locks WHERE name = 'versions' FOR UPDATE
