-- Backfills with a version that are not finished and have done nothing since a moment.
SELECT b.backfill_id
  FROM anomaly.backfills b
 WHERE b.version IS NOT NULL AND b.finished_at IS NULL AND b.started_at < :since
   AND NOT EXISTS (SELECT FROM anomaly.backfill_pieces p
                    WHERE p.backfill_id = b.backfill_id AND p.finished_at >= :since)
 ORDER BY b.backfill_id
