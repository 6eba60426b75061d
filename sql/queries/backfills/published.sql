-- What the windows of a backfill have changed, in the order in which they were published.
SELECT scored, inserted, updated, retracted, retraction_withheld, anomalies, changes
  FROM anomaly.scoring_runs
 WHERE backfill_id = :backfill_id
 ORDER BY published_at, run_id
