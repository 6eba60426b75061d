-- Counts of all windows that were ever published, and when the last one was, per origin.
SELECT kept.origin::text AS origin,
       (kept.inserted + coalesce(there.inserted, 0))::bigint AS inserted,
       (kept.updated + coalesce(there.updated, 0))::bigint AS updated,
       (kept.retracted + coalesce(there.retracted, 0))::bigint AS retracted,
       there.last_at
  FROM anomaly.deleted_scoring_runs kept
  LEFT JOIN (
       SELECT origin, sum(inserted) AS inserted, sum(updated) AS updated,
              sum(retracted) AS retracted, max(published_at) AS last_at
         FROM anomaly.scoring_runs
        GROUP BY origin
       ) AS there USING (origin)
 ORDER BY kept.origin
