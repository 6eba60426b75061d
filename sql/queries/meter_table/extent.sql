-- First and last timestamp of the meter table, within the years that Python's datetime has.
SELECT min({timestamp}), max({timestamp})
  FROM {table}
 WHERE {timestamp} >= {earliest} AND {timestamp} < {latest}
