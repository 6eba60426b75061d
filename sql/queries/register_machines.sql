-- Add machines seen for the first time; those known already stay as they are.
--
-- An integer key is the machine's id where that is free, any other key gets the
-- next free number, in the order of the keys.
WITH seen AS (
    SELECT key, wanted_id,
           row_number() OVER (PARTITION BY wanted_id ORDER BY length(key), key) AS claim
      FROM unnest(CAST(:keys AS text[]), CAST(:wanted_ids AS integer[])) AS new (key, wanted_id)
     WHERE NOT EXISTS (SELECT FROM anomaly.machines m WHERE m.source_key = new.key)
), placed AS (
    SELECT key, CASE WHEN claim = 1 AND NOT EXISTS (
               SELECT FROM anomaly.machines m WHERE m.machine_id = wanted_id)
           THEN wanted_id END AS machine_id
      FROM seen
), highest AS (
    SELECT coalesce(max(machine_id), 0) AS machine_id
      FROM (SELECT machine_id FROM anomaly.machines
             UNION ALL SELECT machine_id FROM placed) AS taken
)
INSERT INTO anomaly.machines (machine_id, source_key, name)
SELECT coalesce(placed.machine_id,
                highest.machine_id
                + row_number() OVER (PARTITION BY placed.machine_id IS NULL ORDER BY key)),
       key, key
  FROM placed, highest
ON CONFLICT DO NOTHING
