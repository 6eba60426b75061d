-- Counts of what is deleted together with a machine.
SELECT (SELECT count(*) FROM anomaly.anomaly_results
         WHERE machine_id = :machine_id) AS verdicts,
       (SELECT count(*) FROM anomaly.anomaly_results_history
         WHERE machine_id = :machine_id) AS replaced_verdicts,
       (SELECT count(*) FROM anomaly.incidents WHERE machine_id = :machine_id) AS incidents,
       (SELECT count(*) FROM anomaly.labels WHERE machine_id = :machine_id) AS labels
