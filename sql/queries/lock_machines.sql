-- One registration of machines at a time. A statement of its own: the next one then
-- sees what the registration before has committed.
SELECT FROM anomaly.locks WHERE name = 'machines' FOR UPDATE
