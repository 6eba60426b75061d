-- Verdicts that incidents are made of, in the range of each machine, with the time of the verdict
-- before: between the two there may be a gap. A gap shows in the verdict after it, so the first
-- verdict after a range is read too. Times are microseconds since 1970: numbers are parsed in half
-- the time.
WITH range AS MATERIALIZED (
    SELECT asked.machine_id, asked.starts_at,
           coalesce(following.utc_timestamp, asked.ends_at) AS ends_at
      FROM unnest(CAST(:machines AS integer[]), CAST(:starts AS timestamptz[]),
                  CAST(:ends AS timestamptz[])) AS asked (machine_id, starts_at, ends_at)
      LEFT JOIN LATERAL (
           SELECT r.utc_timestamp, r.quality
             FROM anomaly.anomaly_results r
            WHERE r.machine_id = asked.machine_id AND r.utc_timestamp > asked.ends_at
            ORDER BY r.utc_timestamp
            LIMIT 1
           ) AS following ON following.quality >= 'gap'
)
SELECT r.machine_id,
       CAST(extract(epoch FROM r.utc_timestamp) * 1000000 AS bigint) AS utc_timestamp,
       r.anomaly, r.anomaly_score, r.threshold, r.reason, r.quality::text AS quality,
       CAST(extract(epoch FROM previous.utc_timestamp) * 1000000 AS bigint) AS previous_at
  FROM range
  JOIN anomaly.anomaly_results r
    ON r.machine_id = range.machine_id
   AND r.utc_timestamp BETWEEN range.starts_at AND range.ends_at
   AND (r.anomaly = 1 OR r.quality >= 'gap')
  LEFT JOIN LATERAL (
       SELECT p.utc_timestamp
         FROM anomaly.anomaly_results p
        WHERE p.machine_id = r.machine_id AND p.utc_timestamp < r.utc_timestamp
        ORDER BY p.utc_timestamp DESC
        LIMIT 1
       ) AS previous ON true
 ORDER BY r.machine_id, r.utc_timestamp
