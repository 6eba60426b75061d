-- Take a label back, once.
UPDATE anomaly.labels
   SET withdrawn_at = :at, withdrawn_by = :by,
       withdrawn_as = nextval('anomaly.labels_label_id_seq')
 WHERE label_id = :label_id AND withdrawn_at IS NULL
RETURNING machine_id
