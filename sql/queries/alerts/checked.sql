-- Note that a check has run.
INSERT INTO anomaly.checks (name, checked_at) VALUES (:name, :at)
    ON CONFLICT (name) DO UPDATE SET checked_at = greatest(checks.checked_at, excluded.checked_at)
