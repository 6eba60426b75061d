"""The operations room: what operators do with a whole deployment.

`backfilling` scores past ranges, and `backfill_report` says what that changed. `status` reports the
state of the deployment to people and `metrics` to Prometheus, `doctor` looks for what is set up
wrongly, `alert_checks` finds what of the pipeline people are to be told, `task_failures` tells of
failed tasks.
`machine_changes` describes machines, `site_changes` says what energy costs and what
the shifts are, `machine_removal` removes a machine, `purging` deletes what is older than is kept,
`api_keys` makes and revokes the keys of the API.
It may import every room except the entry points `api`, `cli` and `demo`.
"""
