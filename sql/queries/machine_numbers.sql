-- Machines whose key is a number as Postgres writes it, by that number.
COPY (
    SELECT source_key::bigint, machine_id
      FROM anomaly.machines
     WHERE source_key ~ '^(0|-?[1-9][0-9]{0,17})$'
     ORDER BY 1
) TO STDOUT (FORMAT binary)
