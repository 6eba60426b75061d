-- Holidays of calendars.
INSERT INTO anomaly.holidays (calendar, day, name)
SELECT * FROM unnest(CAST(:calendars AS text[]), CAST(:days AS date[]), CAST(:names AS text[]))
