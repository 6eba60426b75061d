-- How many machines the deployment knows. About as many readings come per interval.
SELECT count(*)
  FROM anomaly.machines
