SELECT name, sha256 FROM anomaly.schema_migrations ORDER BY name
