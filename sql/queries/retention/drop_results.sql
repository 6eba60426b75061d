-- Drop months of results, and note up to when: the sums of their hours stay as they are.
WITH dropped AS MATERIALIZED (
    SELECT anomaly.drop_results_before(:moment) AS months
), noted AS (
    INSERT INTO anomaly.dropped_results (dropped_to)
    SELECT CAST(:moment AS timestamptz) FROM dropped WHERE months > 0
)
SELECT months FROM dropped
