-- Make the sums per hour and day right again, from the first to the last changed verdict of each
-- machine.
SELECT anomaly.refresh_sums(CAST(:machines AS integer[]), CAST(:firsts AS timestamptz[]),
                            CAST(:lasts AS timestamptz[]))
