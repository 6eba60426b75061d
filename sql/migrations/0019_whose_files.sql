-- Two databases may name the same files of a model: one is a copy of the other, by a dump or as a
-- template. Only the one that has registered a version may remove its files.

CREATE FUNCTION anomaly.this_database() RETURNS text
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format('%s/%s', s.system_identifier, d.oid)
      FROM pg_control_system() s, pg_database d
     WHERE d.datname = current_database()
$$;
COMMENT ON FUNCTION anomaly.this_database() IS
    'Number of the cluster, and of the database in it; another one after a restore elsewhere';
REVOKE ALL ON FUNCTION anomaly.this_database() FROM PUBLIC;

-- Of what was registered before, nobody knows whether this is the database that did it.
ALTER TABLE anomaly.model_versions ADD COLUMN database text;
ALTER TABLE anomaly.model_versions ALTER COLUMN database SET DEFAULT anomaly.this_database();
ALTER TABLE anomaly.model_drafts ADD COLUMN database text;
ALTER TABLE anomaly.model_drafts ALTER COLUMN database SET DEFAULT anomaly.this_database();
COMMENT ON COLUMN anomaly.model_versions.database IS
    'The database that registered it, which alone may remove its files; empty: not known';
COMMENT ON COLUMN anomaly.model_drafts.database IS
    'The database that wrote the files, which alone may remove them; empty: not known';
