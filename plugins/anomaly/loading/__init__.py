"""The loading room: files of readings, as people's tools write them, into the meter table.

`files` loads a file, all of it or nothing, or previews it, with what `options` say of it.
`opening` decides what it is by its content; `headers` finds where its table begins. `text_files`
reads CSV in all its dialects, `typed_files` Parquet, JSON lines and workbooks, `nem12` the format
of Australian meters, in blocks of one shape. `opened_file` finds out what a file holds: `columns`
which column is what, `time_parsing` and `number_parsing` how they are written. `file_readings`
turns blocks into readings and checks them: `local_times` for clocks that are set, `kinds` for
counters that are none, `problems` for what cannot be read. `taken_for` says in words what a file
was taken for. The room may import `database`, `readings` and the words that every room uses, but
nothing from scoring.
"""
