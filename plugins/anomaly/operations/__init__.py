"""The operations room: what operators do with a whole deployment.

`backfilling` scores past ranges, and `backfill_report` says what that changed. `status` reports the
state of the deployment to people and `metrics` to Prometheus, `machine_removal` removes a machine
from it. It may import every room
except the entry points `cli` and `demo`.
"""
