-- End a silence now; one that is over stays as it was. What silences hold is looked at again.
WITH ended AS (
    UPDATE anomaly.alert_silences
       SET ends_at = greatest(starts_at, least(ends_at, clock_timestamp()))
     WHERE silence_id = :silence_id
    RETURNING silence_id, ends_at
), events AS (
    UPDATE anomaly.alert_events e
       SET held_until = ended.ends_at
      FROM ended
     WHERE e.decided_at IS NULL AND e.held_until > ended.ends_at AND e.decision LIKE 'silenced by %'
), messages AS (
    UPDATE anomaly.alert_messages m
       SET next_attempt = ended.ends_at
      FROM ended
     WHERE m.sent_at IS NULL AND m.given_up_at IS NULL AND m.dropped_at IS NULL
       AND m.next_attempt > ended.ends_at AND m.error LIKE 'silenced by %'
)
SELECT silence_id, ends_at FROM ended
