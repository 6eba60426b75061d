"""How pytest-xdist shares out the slow tests: the Airflows on one worker, one after the other.

The marker ``xdist_group`` says nothing to pytest 9.2, whose tests keep their names whatever
pytest-xdist 3.8 does.
"""

from pathlib import PurePosixPath

from xdist.scheduler import LoadScopeScheduling

WITH_AIRFLOW = {
    "test_backfills", "test_compose_services", "test_demo", "test_killed_worker",
    "test_killed_airflow", "test_observability", "test_scheduler", "test_weekly_model",
}  # fmt: skip
"""Each starts an Airflow, which wants port 8080 and most of the machine."""


class OneAirflowAtATime(LoadScopeScheduling):
    """What needs no Airflow runs beside them: acceptance tests by module, others each alone."""

    def _split_scope(self, nodeid: str) -> str:
        module = PurePosixPath(nodeid.split("::")[0])
        if module.parent.name != "acceptance":
            return nodeid
        return "airflow" if module.stem in WITH_AIRFLOW else str(module)
