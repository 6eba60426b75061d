-- When a check has run last.
SELECT max(checked_at) AS checked_at FROM anomaly.checks WHERE name = :name
