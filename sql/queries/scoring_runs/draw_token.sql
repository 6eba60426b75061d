-- The fencing token of an attempt, drawn before it reads anything.
SELECT nextval('anomaly.fencing_token')
