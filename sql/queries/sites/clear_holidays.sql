-- Forget the holidays of all calendars, before they are written again.
DELETE FROM anomaly.holidays
