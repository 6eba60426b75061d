-- Take the entries that overlap a range out of force, and return their parts outside the range.
-- '-infinity' and an empty end are returned as they are.
WITH replaced AS (
    UPDATE anomaly.model_in_force
       SET superseded_at = clock_timestamp()
     WHERE superseded_at IS NULL
       AND tstzrange(effective_from, effective_to)
           && tstzrange(CAST(:start AS timestamptz), CAST(:end AS timestamptz))
    RETURNING effective_from, effective_to, version, recorded_by, reason
), outside AS (
    SELECT effective_from AS starts_at, CAST(:start AS timestamptz) AS ends_at,
           version, recorded_by, reason
      FROM replaced
     WHERE effective_from < CAST(:start AS timestamptz)
     UNION ALL
    SELECT CAST(:end AS timestamptz), effective_to, version, recorded_by, reason
      FROM replaced
     WHERE CAST(:end AS timestamptz) IS NOT NULL
       AND (effective_to IS NULL OR effective_to > CAST(:end AS timestamptz))
)
SELECT CAST(starts_at AS text) AS starts_at, CAST(ends_at AS text) AS ends_at, version,
       recorded_by, reason
  FROM outside
