-- Ids of all machines and the limits of their readings, as fixed-width binary rows (no NULLs:
-- a limit that is not set is NaN).
COPY (
    SELECT machine_id, coalesce(max_power_kw, 'NaN'), coalesce(rolls_over_at, 'NaN')
      FROM anomaly.machines
     ORDER BY machine_id
) TO STDOUT (FORMAT binary)
