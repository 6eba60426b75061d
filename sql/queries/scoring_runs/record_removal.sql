-- Insert the ledger's row for a machine's removal. Its window is all the time of its verdicts,
-- and as far back from the end of what is scored as a reading changes verdicts: an attempt that has read the machine meanwhile
-- starts again.
INSERT INTO anomaly.scoring_runs (
    run_id, window_start, window_end, written_from, written_to, origin, command, retracted,
    package_version)
SELECT nextval('anomaly.fencing_token'), touched.starts_at, scored.ends_at, touched.starts_at,
       scored.ends_at, 'backfill', :command, touched.verdicts, :package_version
  FROM (SELECT max(written_to) AS ends_at FROM anomaly.scoring_runs
         WHERE window_start < window_end) AS scored
 CROSS JOIN LATERAL (
       SELECT least(min(r.utc_timestamp), scored.ends_at - :reach) AS starts_at,
              count(*) AS verdicts
         FROM anomaly.anomaly_results r
        WHERE r.machine_id = :machine_id
       ) AS touched
 WHERE scored.ends_at IS NOT NULL
