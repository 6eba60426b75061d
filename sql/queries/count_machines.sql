-- How many machines the deployment knows: about as many readings come an interval.
SELECT count(*)
  FROM anomaly.machines
