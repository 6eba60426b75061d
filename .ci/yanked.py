"""Name the releases that their authors have withdrawn: ``python yanked.py REPORT`` of pip."""

import json
import sys
from pathlib import Path


def main(report: str) -> int:
    """Print each, and return how many there are."""
    found = json.loads(Path(report).read_text(encoding="utf-8"))["install"]
    yanked = [each["metadata"] for each in found if each["is_yanked"]]
    for package in yanked:
        print(f"{package['name']} {package['version']} was withdrawn by its authors: lock another")
    return len(yanked)


if __name__ == "__main__":
    sys.exit(min(main(sys.argv[1]), 1))
