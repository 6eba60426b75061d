-- The last verdict after a window that a change can affect, per machine: the last one up to
-- :reach after the change, and also the verdict after that one, unless it is more than :max_gap
-- later.
SELECT c.machine_id, later.until
  FROM unnest(CAST(:machines AS integer[]), CAST(:changed_at AS timestamptz[]))
       AS c (machine_id, changed_at)
 CROSS JOIN LATERAL (
       SELECT greatest(
                  min(r.utc_timestamp),
                  max(r.utc_timestamp) FILTER (
                      WHERE r.utc_timestamp <= c.changed_at + CAST(:reach AS interval))
              ) AS until
         FROM anomaly.anomaly_results r
        WHERE r.machine_id = c.machine_id
          AND r.utc_timestamp >= :end
          AND r.utc_timestamp <= c.changed_at
              + greatest(CAST(:max_gap AS interval), CAST(:reach AS interval))
       ) AS later
 WHERE later.until IS NOT NULL
 ORDER BY c.machine_id
