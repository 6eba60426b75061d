-- The first timestamp of the meter table at or after a moment.
SELECT min({timestamp}) FROM {table} WHERE {timestamp} >= {start}
