-- One registration of machines at a time. A statement of its own: the next one then
-- sees what the registration before has committed.
SELECT pg_advisory_xact_lock(hashtext('anomaly.machines'))
