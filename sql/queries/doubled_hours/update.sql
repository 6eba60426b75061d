-- Replace the reading of one row at a local time that the clock shows twice.
UPDATE {table} SET {assignments} WHERE ctid = {place}::tid AND {timestamp} IS NOT NULL
