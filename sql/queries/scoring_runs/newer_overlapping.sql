-- Ledger rows of newer attempts that overlap a window that is about to be published.
SELECT run_id, window_start, window_end
  FROM anomaly.scoring_runs
 WHERE run_id > :run_id
   AND tstzrange(written_from, written_to) && tstzrange(:start, :end)
   AND (machines && CAST(:machines AS integer[])) IS NOT FALSE -- NULL: all machines
 ORDER BY run_id DESC
 LIMIT 1
