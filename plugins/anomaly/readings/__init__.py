"""The readings room: what a reading is, and what can be said about it without a model.

- `record` lists the fields of the prototype's record.
- `preprocessing` holds its steps as functions, `transformers` as scikit-learn transformers.
- `measuring` computes power, flat runs and gaps; `energy` what each reading adds.
- `meter_faults` and `contradictions` tell a fault of the meter from a fault of the machine.
- `quality` names what is stored about a reading.
- `sorted_rows` finds runs, and rows within a time, in sorted readings.
- `local_clocks` finds the moment that a local time means.

All are pure functions of tables: no database, no files, no clock. It may import only
the words that every room uses.
"""
