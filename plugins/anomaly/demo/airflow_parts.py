"""Airflow's parts as the children of one process, as ``airflow standalone`` starts them.

That command starts two log servers too, which listen on every interface. Here is none: all parts
run on this computer, so the API server reads the logs from their files.
"""

import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

PARTS = {
    "scheduler": ["--skip-serve-logs"],
    "dag-processor": [],
    "api-server": [],
    "triggerer": ["--skip-serve-logs"],
}
"""The commands of `airflow` that start them, with their options."""


def main() -> None:
    """Bring Airflow's tables up to date, and run the parts until SIGINT.

    A part that has ended is not started again. It stays a zombie, by which one sees that it ended.
    """
    airflow = str(Path(sys.executable).with_name("airflow"))
    parts: list[subprocess.Popen[bytes]] = []
    with suppress(KeyboardInterrupt):
        subprocess.run([airflow, "db", "migrate"], check=True)
        for name, options in PARTS.items():
            parts.append(subprocess.Popen([airflow, name, *options]))
        signal.pause()
    for part in parts:
        part.terminate()
    for part in parts:
        part.wait()


if __name__ == "__main__":
    main()
