-- What a message about an incident would tell now.
SELECT i.*, CAST(:event AS text) AS event, '' AS says, CAST(:at AS timestamptz) AS created_at,
       i.severity AS severity_now
  FROM anomaly.incident_facts i
 WHERE i.incident_id = :incident_id
