-- Delete a machine with its verdicts, incidents and labels. Acknowledgements are deleted with
-- their incidents.
WITH verdicts AS (
    DELETE FROM anomaly.anomaly_results WHERE machine_id = :machine_id
), replaced AS (
    DELETE FROM anomaly.anomaly_results_history WHERE machine_id = :machine_id
), incidents AS (
    DELETE FROM anomaly.incidents WHERE machine_id = :machine_id
), hours AS (
    DELETE FROM anomaly.machine_hours WHERE machine_id = :machine_id
), days AS (
    DELETE FROM anomaly.machine_days WHERE machine_id = :machine_id
), labels AS (
    DELETE FROM anomaly.labels WHERE machine_id = :machine_id
)
DELETE FROM anomaly.machines WHERE machine_id = :machine_id
