-- Verdicts of some machines in a window as fixed-width binary rows, to compare with an
-- attempt's (no NULLs: numbers are NaN, a reason is its hash). Machine by machine, by
-- the key: no plan depends on what the planner knows of the table.
COPY (
    SELECT r.machine_id, r.utc_timestamp, r.reading, coalesce(r.power_kw, 'NaN'),
           coalesce(r.power_diff, 'NaN'), coalesce(r.anomaly_score, 'NaN'), r.threshold,
           coalesce(r.expected_kw, 'NaN'), r.anomaly, r.model_version,
           CASE r.quality WHEN 'ok' THEN 0 WHEN 'learning' THEN 1 WHEN 'gap' THEN 2
                WHEN 'irregular' THEN 3 WHEN 'duplicate' THEN 4 WHEN 'first' THEN 5
                WHEN 'rollover' THEN 6 WHEN 'stuck' THEN 7 WHEN 'reset' THEN 8
                WHEN 'impossible' THEN 9 WHEN 'catch_up' THEN 10 WHEN 'contradicted' THEN 11 END,
           CASE WHEN r.reason IS NULL THEN 0
                ELSE ('x' || left(md5(r.reason), 16))::bit(64)::bigint END
      FROM (SELECT machine_id
              FROM ({machines}) AS every
             WHERE abs(machine_id) % {parts} = {part}
            OFFSET 0) AS asked
     CROSS JOIN LATERAL (
           SELECT *
             FROM anomaly.anomaly_results of_machine
            WHERE of_machine.machine_id = asked.machine_id
              AND of_machine.utc_timestamp >= {start} AND of_machine.utc_timestamp < {end}
           OFFSET 0
           ) AS r
) TO STDOUT (FORMAT binary)
