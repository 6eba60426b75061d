-- Drafts of this database that no training is writing: it has ended or was killed. For a retired
-- version, with the hashes of its files.
SELECT d.version, d.folder, d.token, v.sha256
  FROM anomaly.model_drafts d
  LEFT JOIN anomaly.model_versions v ON v.version = d.version AND v.status = 'retired'
 WHERE d.database = anomaly.this_database()
 ORDER BY d.version
   FOR UPDATE OF d SKIP LOCKED
