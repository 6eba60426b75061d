"""Questions that a run asks a person, on a real Airflow."""

import time


def wait_for_question(airflow, dag_id, run_id, task_id="ask", *, instead=(), seconds=120):
    """Wait until a run asks, and return the question.

    Airflow 3.3.2 fails the try when the answer comes before the scheduler has been told that
    the worker left the task waiting, a second at most; its log says when it has.

    Parameters
    ----------
    instead : sequence of str
        Tasks of which none may have succeeded meanwhile.
    """
    told = f"TaskInstance Finished: dag_id={dag_id}, task_id={task_id}, run_id={run_id},"
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        states = airflow.task_states(dag_id, run_id)
        for other in instead:
            assert states.get(other) != "success", airflow.task_log(dag_id, run_id, other)
        assert states.get(task_id) != "failed", airflow.task_log(dag_id, run_id, task_id)
        if states.get(task_id) == "awaiting_input" and told in airflow.log.read_text():
            return airflow.question(dag_id, run_id, task_id)
        time.sleep(0.2)
    raise AssertionError(f"{dag_id} {run_id} did not ask within {seconds} s")
