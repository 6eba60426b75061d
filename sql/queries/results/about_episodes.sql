-- All verdicts about episodes, as fixed-width binary rows (no NULLs: numbers are NaN):
-- from some time before the first alarm of each (at least the verdict directly
-- before it) to the last alarm.
COPY (
    SELECT asked.number, r.utc_timestamp, r.anomaly = 1, r.quality < 'stuck',
           coalesce(r.power_kw, 'NaN'), coalesce(r.expected_kw, 'NaN')
      FROM unnest(CAST({numbers} AS integer[]), CAST({machines} AS integer[]),
                  CAST({firsts} AS timestamptz[]), CAST({lasts} AS timestamptz[]))
           AS asked (number, machine_id, first_at, last_at)
      LEFT JOIN LATERAL (
           SELECT p.utc_timestamp
             FROM anomaly.anomaly_results p
            WHERE p.machine_id = asked.machine_id AND p.utc_timestamp < asked.first_at
            ORDER BY p.utc_timestamp DESC
            LIMIT 1
           ) AS previous ON true
     CROSS JOIN LATERAL (
           SELECT *
             FROM anomaly.anomaly_results about
            WHERE about.machine_id = asked.machine_id
              AND about.utc_timestamp >= least(asked.first_at - {look_back}, previous.utc_timestamp)
              AND about.utc_timestamp <= asked.last_at
           OFFSET 0
           ) AS r
     ORDER BY asked.number, r.utc_timestamp
) TO STDOUT (FORMAT binary)
