INSERT INTO anomaly.model_versions (
    version, detector, artefact, sha256, trained_from, trained_to, readings, parameters,
    metrics, library_versions, registered_by)
VALUES (
    :version, :detector, :artefact, CAST(:sha256 AS jsonb), :trained_from, :trained_to,
    :readings, CAST(:parameters AS jsonb), CAST(:metrics AS jsonb),
    CAST(:library_versions AS jsonb), :registered_by)
