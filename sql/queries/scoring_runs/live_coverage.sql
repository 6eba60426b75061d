-- How far live runs have scored. Each live run begins at or before the end of the one before it,
-- so the latest end is the end of coverage without a gap.
SELECT max(window_end) AS watermark, max(ingested_through) AS ingested_through
  FROM anomaly.scoring_runs
 WHERE origin = 'live'
