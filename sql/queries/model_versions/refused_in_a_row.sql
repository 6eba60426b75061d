-- How many of the newest versions the gate refused, one after another, and the newest of them.
SELECT count(*) AS refused, max(v.version) AS newest
  FROM anomaly.model_versions v
 WHERE v.status = 'refused'
   AND v.version > coalesce((SELECT max(other.version)
                               FROM anomaly.model_versions other
                              WHERE other.status = 'registered'), 0)
   AND v.version > coalesce((SELECT max(f.version)
                               FROM anomaly.model_in_force f
                              WHERE f.superseded_at IS NULL AND f.effective_to IS NULL), 0)
