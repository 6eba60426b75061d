-- First and last timestamp of the meter table.
SELECT min({timestamp}), max({timestamp}) FROM {table}
