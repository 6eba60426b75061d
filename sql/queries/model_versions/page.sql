-- Versions, newest first, before the last one of the page before.
SELECT model_version, detector, status, trained_from, trained_to, readings, registered_at,
       registered_by, judges_new_readings
  FROM bi.model_versions
 WHERE (CAST(:before AS integer) IS NULL OR model_version < :before)
 ORDER BY model_version DESC
 LIMIT :rows
