-- Ledger rows that overlap a window. Tokens tell the order in which attempts began,
-- this tells what was published while one was reading: an attempt with an older
-- token may have read later.
SELECT count(*)
  FROM anomaly.scoring_runs
 WHERE tstzrange(written_from, written_to) && tstzrange(:start, :end)
