-- From when on the version that judges new readings does so without a break; empty: always.
SELECT nullif(max(greatest(f.effective_from, coalesce(other.ends_at, '-infinity'))),
              '-infinity') AS since
  FROM (SELECT min(effective_from) AS effective_from FROM anomaly.model_in_force
         WHERE superseded_at IS NULL AND version = :version) f
  CROSS JOIN (SELECT max(effective_to) AS ends_at FROM anomaly.model_in_force
               WHERE superseded_at IS NULL AND version <> :version) other
