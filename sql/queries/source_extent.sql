-- First and last timestamp of the meter table, among those that a clock here can show.
SELECT min({timestamp}), max({timestamp})
  FROM {table}
 WHERE {timestamp} >= {earliest} AND {timestamp} < {latest}
