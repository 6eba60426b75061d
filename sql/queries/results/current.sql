-- Verdicts of some machines in a window as fixed-width binary rows, to compare with an
-- attempt's (no NULLs: numbers are NaN, a reason is its hash). Read per
-- machine by the key, so that the plan does not depend on the table's statistics.
COPY (
    SELECT r.machine_id, r.utc_timestamp, {verdict}
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
