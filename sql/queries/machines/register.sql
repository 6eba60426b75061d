-- Add new machines; known machines stay as they are.
--
-- A key with a wanted id gets this id if it is free and no earlier key wants it. All other keys
-- get the next free numbers, in the order of the keys.
WITH seen AS (
    SELECT key,
           CASE WHEN row_number() OVER (PARTITION BY wanted_id ORDER BY key) = 1
                 AND NOT EXISTS (SELECT FROM anomaly.machines m WHERE m.machine_id = wanted_id)
                THEN wanted_id END AS wanted_id
      FROM unnest(CAST(:keys AS text[]), CAST(:wanted_ids AS integer[])) AS new (key, wanted_id)
     WHERE NOT EXISTS (SELECT FROM anomaly.machines m WHERE m.source_key = new.key)
), taken AS (
    SELECT greatest((SELECT max(machine_id) FROM anomaly.machines),
                    (SELECT max(wanted_id) FROM seen), 0) AS highest
)
INSERT INTO anomaly.machines (machine_id, source_key, name, time_zone)
SELECT coalesce(wanted_id,
                highest + row_number() OVER (PARTITION BY wanted_id IS NULL ORDER BY key)),
       key, key, :time_zone
  FROM seen, taken
