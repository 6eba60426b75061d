-- One load into the meter table at a time; the lock is released with the transaction. Only
-- log-ins that may update the table can take it. It blocks no reader and no other writer.
LOCK TABLE {table} IN SHARE UPDATE EXCLUSIVE MODE
