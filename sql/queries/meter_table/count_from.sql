-- Rows of the meter table that are not due yet.
SELECT count(*) FROM {table} WHERE {timestamp} >= {start}
