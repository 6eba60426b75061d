-- Number of ledger rows that overlap a window. If it grows while an attempt reads, somebody else
-- has published meanwhile. Tokens do not show that: they give the order in which attempts began,
-- and an attempt with an older token may have read later.
SELECT count(*)
  FROM anomaly.scoring_runs
 WHERE tstzrange(written_from, written_to) && tstzrange(:start, :end)
   AND (machines && CAST(:machines AS integer[])) IS NOT FALSE -- NULL: all machines
