INSERT INTO anomaly.model_drafts (version, folder, token, begun_by)
VALUES (:version, :folder, :token, :by)
