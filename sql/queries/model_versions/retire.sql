-- Retire all versions except the newest ones that are kept. A version stays if the version map
-- names it for any time, or if it gave a verdict, current or replaced (only versions that were in
-- force once can have done that). The folders of retired versions become drafts, to be swept.
WITH retired AS (
    UPDATE anomaly.model_versions v
       SET status = 'retired'
     WHERE v.status <> 'retired'
       AND v.version NOT IN (SELECT version FROM anomaly.model_versions
                              WHERE status <> 'retired' ORDER BY version DESC LIMIT :keep)
       AND (NOT EXISTS (SELECT FROM anomaly.model_in_force f WHERE f.version = v.version)
            OR (NOT EXISTS (SELECT FROM anomaly.model_in_force f
                             WHERE f.version = v.version AND f.superseded_at IS NULL)
                AND NOT EXISTS (SELECT FROM anomaly.anomaly_results r
                                 WHERE r.model_version = v.version)
                AND NOT EXISTS (SELECT FROM anomaly.anomaly_results_history h
                                 WHERE h.model_version = v.version)))
    RETURNING v.version, v.artefact, v.database
)
INSERT INTO anomaly.model_drafts (version, folder, token, begun_by, database)
SELECT version, artefact, replace(gen_random_uuid()::text, '-', ''), :by, database FROM retired
RETURNING version
