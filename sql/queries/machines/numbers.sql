-- Machines whose source key is a number in Postgres's spelling, sorted by that number.
COPY (
    SELECT source_key::bigint, machine_id
      FROM anomaly.machines
     WHERE source_key ~ '^(0|-?[1-9][0-9]{{0,17}})$'
     ORDER BY 1
) TO STDOUT (FORMAT binary)
