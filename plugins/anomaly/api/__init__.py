"""The API: an entry point, as the command line is; it judges records and tells verdicts by HTTP.

`app` puts the parts together, for `server`, which serves them alone, and for Airflow's plugin.
`door` is what every request passes: its number, who asks, limits, log and metrics. `keys` says who
may ask where the API stands alone. `workers` are the threads that do the work. The calls:
`predictions`, `listings`, `labelling` and `health`; `answers` are the forms of what they take and
give, `pages` turns rows into JSON or CSV, `refusals` turns errors into answers, `refresher` looks
every few seconds for new models and keys.

It may import every room below it, and is the only one that imports FastAPI and what serves it. It
knows nothing of Airflow: the plugin says who asks there.
"""
