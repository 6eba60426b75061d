-- What was written late or repaired since a moment.
SELECT coalesce(sum(late), 0)::bigint AS late_verdicts,
       coalesce(sum(updated + retracted), 0)::bigint AS repaired_verdicts
  FROM anomaly.scoring_runs
 WHERE published_at >= :since
