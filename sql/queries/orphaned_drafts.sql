-- Drafts that nobody is writing: their training has ended, however it did.
SELECT version, folder, token FROM anomaly.model_drafts
 ORDER BY version
   FOR UPDATE SKIP LOCKED
