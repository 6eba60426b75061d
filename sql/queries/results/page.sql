-- Verdicts of machines from a number on, by machine, then time; read per machine by the key, so
-- that a page costs what it holds.
SELECT v.utc_timestamp, v.machine_id, v.machine, v.site, v.reading, v.power_kw, v.expected_kw,
       v.energy_kwh, v.anomaly, v.anomaly_score, v.threshold, v.reason, v.quality, v.origin,
       v.model_version, v.scored_at
  FROM (SELECT machine_id
          FROM anomaly.machines
         WHERE (CAST(:machine_id AS integer) IS NULL OR machine_id = :machine_id)
           AND (CAST(:from_machine AS integer) IS NULL OR machine_id >= :from_machine)
         ORDER BY machine_id
        OFFSET 0) AS asked
 CROSS JOIN LATERAL (
       SELECT *
         FROM bi.verdicts of_machine
        WHERE of_machine.machine_id = asked.machine_id
          AND of_machine.utc_timestamp >= :start AND of_machine.utc_timestamp < :end
          AND (CAST(:anomaly AS smallint) IS NULL OR of_machine.anomaly = :anomaly)
        ORDER BY of_machine.utc_timestamp
        LIMIT :rows
       ) AS v
 ORDER BY asked.machine_id, v.utc_timestamp
 LIMIT :rows
