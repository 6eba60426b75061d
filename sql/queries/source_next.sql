-- The first timestamp of the meter table from a moment on, before another.
SELECT min({timestamp}) FROM {table} WHERE {timestamp} >= {start} AND {timestamp} < {end}
