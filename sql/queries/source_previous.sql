-- The last timestamp of the meter table before a moment.
SELECT max({timestamp}) FROM {table} WHERE {timestamp} < {end}
