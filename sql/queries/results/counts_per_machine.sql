-- Number of verdicts and anomalies per machine.
SELECT machine, count(*) AS verdicts, sum(anomaly) AS anomalies,
       count(*) FILTER (WHERE quality <> 'ok') AS marked,
       min(utc_timestamp) AS "from", max(utc_timestamp) AS "to"
  FROM bi.verdicts
 GROUP BY machine_id, machine
 ORDER BY machine_id
