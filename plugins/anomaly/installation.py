"""Where this package is installed: its DAG files, its SQL, and other copies beside it."""

import re
import sys
from collections.abc import Iterable
from pathlib import Path

from anomaly import __version__

PACKAGE = Path(__file__).parent
_VERSION = re.compile(r'^__version__ = "([^"]+)"', re.MULTILINE)


def bundled_folder(name: str) -> Path:
    """The folder ``dags`` or ``sql``: inside the installed wheel, or beside ``plugins/``.

    Raises
    ------
    FileNotFoundError
        When it is in neither place, as where ``plugins/`` alone was copied.
    """
    beside = PACKAGE.parents[1] / name
    found = [folder for folder in (PACKAGE / name, beside) if folder.is_dir()]
    if not found:
        raise FileNotFoundError(
            2,
            f"the product's folder {name}/ is missing: install the wheel, which brings it, or copy"
            f" {name}/ there",
            str(beside),
        )
    return found[0]


def other_copies(places: Iterable[str] | None = None) -> dict[Path, str]:
    """Other copies of this package that Python would find, with their versions.

    The first on Python's path wins, without a word.

    Parameters
    ----------
    places : iterable of str, optional
        Folders to look in; default ``sys.path``.
    """
    found = {}
    for place in sys.path if places is None else places:
        first_file = Path(place or ".") / PACKAGE.name / "__init__.py"
        if not first_file.is_file() or first_file.resolve().parent == PACKAGE.resolve():
            continue
        version = _VERSION.search(first_file.read_text(encoding="utf-8", errors="replace"))
        if version:
            found[first_file.parent.resolve()] = version[1]
    return found


def conflict(places: Iterable[str] | None = None) -> str:
    """What is wrong where another version of this package is installed too; empty: nothing."""
    for folder, version in other_copies(places).items():
        if version != __version__:
            return (
                f"two versions of the package anomaly are installed: {__version__} in {PACKAGE},"
                f" which is used, and {version} in {folder}: remove one of them"
            )
    return ""
