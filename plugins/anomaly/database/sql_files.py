"""Find the files of ``sql/``, in the installed package or in the repository."""

from functools import cache
from pathlib import Path

_PACKAGED = Path(__file__).parents[1] / "sql"
_FOLDER = _PACKAGED if _PACKAGED.is_dir() else Path(__file__).parents[3] / "sql"


@cache
def sql_file(name: str) -> str:
    """Text of ``sql/<name>``."""
    return (_FOLDER / name).read_text(encoding="utf-8")


def sql_files(folder: str) -> list[str]:
    """Names of the files in ``sql/<folder>``, sorted, as `sql_file` takes them."""
    return sorted(f"{folder}/{path.name}" for path in (_FOLDER / folder).glob("*.sql"))
