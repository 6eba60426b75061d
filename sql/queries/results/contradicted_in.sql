-- Machines with a verdict in a range whose reading is contradicted by later ones.
SELECT DISTINCT machine_id
  FROM anomaly.anomaly_results
 WHERE utc_timestamp >= :start AND utc_timestamp < :end
   AND quality >= 'gap' AND quality = 'contradicted'
   AND machine_id = ANY (CAST(:machines AS integer[]))
