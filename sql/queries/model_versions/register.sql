INSERT INTO anomaly.model_versions (
    version, detector, artefact, sha256, trained_from, trained_to, readings, parameters,
    metrics, judgement, library_versions, status, registered_by)
VALUES (
    :version, :detector, :artefact, CAST(:sha256 AS jsonb), :trained_from, :trained_to,
    :readings, CAST(:parameters AS jsonb), CAST(:metrics AS jsonb), CAST(:judgement AS jsonb),
    CAST(:library_versions AS jsonb), :status, :registered_by)
