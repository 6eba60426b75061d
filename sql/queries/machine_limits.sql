-- Ids of all machines, and what limits their readings, as fixed-width binary rows (no
-- NULLs: what is not set is NaN).
COPY (
    SELECT machine_id, coalesce(max_power_kw, 'NaN'), coalesce(rolls_over_at, 'NaN')
      FROM anomaly.machines
     ORDER BY machine_id
) TO STDOUT (FORMAT binary)
