SELECT version, detector, artefact, sha256, trained_from, trained_to, readings, parameters,
       metrics, judgement, library_versions, status, registered_at, registered_by
  FROM anomaly.model_versions
 WHERE version = :version
