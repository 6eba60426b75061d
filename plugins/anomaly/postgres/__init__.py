"""Everything that speaks SQL: the meter table, the results, the ledger and the version map."""
