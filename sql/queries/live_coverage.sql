-- Where live scoring stands: each live run begins at or before the end of the one
-- before it, so the furthest end is the end of contiguous coverage.
SELECT max(window_end) AS watermark, max(ingested_through) AS ingested_through
  FROM anomaly.scoring_runs
 WHERE origin = 'live'
