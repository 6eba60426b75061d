-- The first timestamp of the meter table at or after one moment and before another.
SELECT min({timestamp}) FROM {table} WHERE {timestamp} >= {start} AND {timestamp} < {end}
