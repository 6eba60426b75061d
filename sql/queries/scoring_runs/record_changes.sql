-- Add to a ledger row what its publication changed.
UPDATE anomaly.scoring_runs SET changes = CAST(:changes AS jsonb) WHERE run_id = :run_id
