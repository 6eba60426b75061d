INSERT INTO anomaly.model_in_force
       (effective_from, effective_to, version, recorded_by, reason, decision, unfinished)
VALUES (CAST(:start AS timestamptz), CAST(:end AS timestamptz), :version, :recorded_by, :reason,
        :decision, :unfinished)
