"""Run the command line as a shell does, without waiting for its imports each time.

A server process imports the command line once and forks for each command: a process of its own,
with its own environment, standard streams and exit code. `test_cli.py` runs the installed script
itself as well.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

ANOMALY = Path(sys.executable).with_name("anomaly")

_SERVER = """
import json, os, sys
import anomaly.cli.app, anomaly.lifecycle.training, anomaly.lifecycle.reproduction
for name in anomaly.cli.app.COMMANDS:
    anomaly.cli.app.load(name)
import sklearn.ensemble

def run(asked):
    for number, path in enumerate((asked["stdout"], asked["stderr"]), start=1):
        os.dup2(os.open(path, os.O_WRONLY), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.chdir(asked["folder"])
    sys.argv = ["anomaly", *asked["arguments"]]
    anomaly.cli.app.main()

for line in sys.stdin:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            run(json.loads(line))
            code = 0
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""


class CommandLine:
    """Runs commands one after the other, each in a process of its own."""

    def __init__(self) -> None:
        self._server: subprocess.Popen[str] | None = None

    def run(
        self, arguments: list[str], environment: Mapping[str, str], folder: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run ``anomaly`` with arguments in an environment; what it said, and how it ended."""
        with tempfile.TemporaryDirectory() as name:
            out, errors = Path(name) / "out", Path(name) / "errors"
            out.touch()
            errors.touch()
            asked = {
                "arguments": arguments,
                "environment": dict(environment),
                "folder": str(folder or name),
                "stdout": str(out),
                "stderr": str(errors),
            }
            code = int(self._ask(json.dumps(asked)))
            return subprocess.CompletedProcess(
                [ANOMALY, *arguments], code, out.read_text(), errors.read_text()
            )

    def close(self) -> None:
        """End the server."""
        if self._server is not None:
            assert self._server.stdin is not None
            self._server.stdin.close()
            self._server.wait(timeout=60)

    def _ask(self, line: str) -> str:
        if self._server is None:
            self._server = subprocess.Popen(
                [sys.executable, "-c", _SERVER],
                env={"PATH": os.environ["PATH"]},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(f"{line}\n")
        self._server.stdin.flush()
        return self._server.stdout.readline()
