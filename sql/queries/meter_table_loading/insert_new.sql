-- Add the rows whose key is not in the table yet, in the order of the key.
INSERT INTO {table} ({new_columns})
SELECT {new_row}
  FROM pg_temp.staged_readings AS s
 WHERE NOT EXISTS (SELECT FROM {table} AS t WHERE {same_key})
 ORDER BY {keys}
