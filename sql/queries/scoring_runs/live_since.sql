-- What live runs have judged since a moment, and how much of that was abnormal. A tick judges the
-- last hours again, so each reading counts several times: the share is right, the counts are not.
SELECT coalesce(sum(scored), 0)::bigint AS scored,
       coalesce(sum(anomalies), 0)::bigint AS anomalies
  FROM anomaly.scoring_runs
 WHERE origin = 'live' AND published_at >= :since
