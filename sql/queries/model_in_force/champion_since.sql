-- Since when these versions, one after the other, have judged new readings, without another
-- version in between; empty: always.
SELECT nullif(max(greatest(f.effective_from, coalesce(other.ends_at, '-infinity'))),
              '-infinity') AS since
  FROM (SELECT min(effective_from) AS effective_from FROM anomaly.model_in_force
         WHERE superseded_at IS NULL AND version = ANY (CAST(:versions AS integer[]))) f
  CROSS JOIN (SELECT max(effective_to) AS ends_at FROM anomaly.model_in_force
               WHERE superseded_at IS NULL
                 AND version <> ALL (CAST(:versions AS integer[]))) other
