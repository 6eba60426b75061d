-- How much of each unfinished backfill is done. One that has done nothing since a moment is left
-- out, unless it has put a version in force.
--
-- Pieces cover the whole range without overlaps, so their time is their share of it. In a large
-- fleet a piece has only a group of the machines.
SELECT b.backfill_id, b.version IS NOT NULL AS has_version, b.started_at,
       coalesce(done.last_at, b.started_at) AS last_at,
       coalesce(done.seconds, 0)::float8
           / extract(epoch FROM b.ends_at - b.starts_at)::float8 AS share
  FROM anomaly.backfills b
 CROSS JOIN LATERAL (
       SELECT greatest(count(*), 1) AS number
         FROM anomaly.machines m
        WHERE b.machines IS NULL OR m.machine_id = ANY (b.machines)
       ) AS asked
 CROSS JOIN LATERAL (
       SELECT max(groups.last_at) AS last_at,
              sum(groups.seconds * groups.machines / asked.number) AS seconds
         FROM (SELECT max(p.finished_at) AS last_at,
                      sum(extract(epoch FROM p.ends_at - p.starts_at)) AS seconds,
                      (SELECT count(*) FROM anomaly.machines m
                        WHERE m.machine_id BETWEEN p.first_machine AND p.last_machine
                          AND (b.machines IS NULL OR m.machine_id = ANY (b.machines))) AS machines
                 FROM anomaly.backfill_pieces p
                WHERE p.backfill_id = b.backfill_id
                GROUP BY p.first_machine, p.last_machine) AS groups
       ) AS done
 WHERE b.finished_at IS NULL
   AND (b.version IS NOT NULL OR greatest(b.started_at, done.last_at) >= :since)
 ORDER BY b.backfill_id DESC
 LIMIT 20
