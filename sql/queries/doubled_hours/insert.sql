-- Insert a row at a local time that the clock shows twice.
INSERT INTO {table} ({columns}) VALUES ({values})
