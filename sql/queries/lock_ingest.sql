-- One load into the meter table at a time; released with the transaction. Only who may update
-- the table can hold it, and it holds up no reader and no other writer.
LOCK TABLE {table} IN SHARE UPDATE EXCLUSIVE MODE
