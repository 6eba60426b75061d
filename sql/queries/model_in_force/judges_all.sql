-- Whether a version already judges a whole range.
SELECT coalesce(range_agg(tstzrange(effective_from, effective_to))
                @> tstzrange(CAST(:start AS timestamptz), CAST(:end AS timestamptz)), false)
  FROM anomaly.model_in_force
 WHERE superseded_at IS NULL AND version = :version
