-- How the pipeline is: the ledger, the backfills, and one line that sums it up.

CREATE OR REPLACE VIEW bi.scoring_runs AS
SELECT run_id, window_start, window_end, origin::text AS origin, command, dag_run_id, published_at,
       readings, missing, duplicates, scored, inserted, updated, retracted, anomalies, backfill_id, late
  FROM anomaly.scoring_runs;

CREATE OR REPLACE VIEW bi.backfills AS
SELECT b.backfill_id, b.starts_at, b.ends_at, cardinality(b.machines) AS machines,
       b.version AS model_version, b.mode, b.command, b.dag_run_id, b.started_at, b.finished_at,
       b.finished_at IS NOT NULL AS is_finished,
       coalesce(done.readings, 0)::bigint AS readings, coalesce(done.inserted, 0)::bigint AS inserted,
       coalesce(done.updated, 0)::bigint AS updated,
       coalesce(done.retracted, 0)::bigint AS retracted
  FROM anomaly.backfills b
  LEFT JOIN (
       SELECT r.backfill_id, sum(r.readings) AS readings, sum(r.inserted) AS inserted,
              sum(r.updated) AS updated, sum(r.retracted) AS retracted
         FROM anomaly.scoring_runs r
        WHERE r.backfill_id IS NOT NULL
        GROUP BY r.backfill_id
       ) AS done USING (backfill_id);

CREATE OR REPLACE VIEW bi.pipeline_health WITH (security_barrier) AS
SELECT ledger.newest_reading_at,
       round(extract(epoch FROM now() - ledger.newest_reading_at) / 60, 1)::double precision
           AS freshness_minutes,
       ledger.scored_to,
       round(extract(epoch FROM now() - ledger.scored_to) / 60, 1)::double precision AS lag_minutes,
       newest.published_at AS last_run_at, newest.command AS last_run_command,
       (SELECT count(*) FROM anomaly.machines m
         WHERE m.active_to IS NULL OR m.active_to > now())::integer AS machines,
       (SELECT count(*) FROM bi.machine_health h WHERE h.state = 'silent')::integer
           AS machines_silent,
       day.readings AS readings_24h, day.late AS late_24h, day.repaired AS repaired_24h,
       (SELECT coalesce(sum(greatest(round(due.intervals) - coalesce(had.readings, 0), 0)), 0)
          FROM (SELECT m.machine_id,
                       extract(epoch FROM least(m.active_to, whole.hour_to)
                                          - greatest(m.active_from, began.hour_start,
                                                     whole.hour_to - interval '24 hours'))
                       / nullif(extract(epoch FROM g.meter_interval), 0) AS intervals
                  FROM anomaly.machines m
                 CROSS JOIN anomaly.metering g
                 CROSS JOIN LATERAL (SELECT min(f.hour_start) AS hour_start
                                       FROM anomaly.machine_hours f
                                      WHERE f.machine_id = m.machine_id) AS began
                 WHERE began.hour_start IS NOT NULL AND whole.hour_to IS NOT NULL) AS due
          LEFT JOIN (SELECT h.machine_id, sum(h.readings) AS readings
                       FROM anomaly.machine_hours h
                      WHERE h.hour_start >= whole.hour_to - interval '24 hours'
                        AND h.hour_start < whole.hour_to
                      GROUP BY h.machine_id) AS had USING (machine_id))::bigint
           AS intervals_without_verdict_24h,
       (SELECT count(*) FROM anomaly.anomaly_results r
         WHERE r.anomaly = 1 AND r.utc_timestamp >= now() - interval '24 hours')::integer
           AS anomalies_24h,
       (SELECT count(*) FROM anomaly.incidents i
         WHERE i.state IN ('open', 'acknowledged'))::integer AS open_incidents,
       (SELECT f.version FROM anomaly.model_in_force f
         WHERE f.superseded_at IS NULL AND f.effective_to IS NULL) AS model_version,
       (SELECT count(*) FROM anomaly.backfills b
         WHERE b.finished_at IS NULL
           AND greatest(b.started_at,
                        (SELECT max(p.finished_at) FROM anomaly.backfill_pieces p
                          WHERE p.backfill_id = b.backfill_id))
               > now() - interval '24 hours')::integer AS backfills_running
  FROM (SELECT max(r.readings_to) AS newest_reading_at,
               max(r.window_end) FILTER (WHERE r.origin = 'live') AS scored_to
          FROM anomaly.scoring_runs r) AS ledger
 CROSS JOIN LATERAL (SELECT date_trunc('hour', ledger.scored_to) AS hour_to) AS whole
  LEFT JOIN (SELECT r.published_at, r.command
               FROM anomaly.scoring_runs r
              ORDER BY r.published_at DESC
              LIMIT 1) AS newest ON true
 CROSS JOIN (SELECT coalesce(sum(r.inserted), 0)::bigint AS readings,
                    coalesce(sum(r.late), 0)::bigint AS late,
                    coalesce(sum(r.updated + r.retracted), 0)::bigint AS repaired
               FROM anomaly.scoring_runs r
              WHERE r.published_at >= now() - interval '24 hours') AS day;
