-- When a live run has published last.
SELECT max(published_at) AS published_at FROM anomaly.scoring_runs WHERE origin = 'live'
