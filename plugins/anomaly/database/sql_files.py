"""Find the files of ``sql/``, in the installed package or in the repository."""

from functools import cache

from anomaly.installation import bundled_folder


@cache
def sql_file(name: str) -> str:
    """Text of ``sql/<name>``."""
    return (bundled_folder("sql") / name).read_text(encoding="utf-8")


def sql_files(folder: str) -> list[str]:
    """Names of the files in ``sql/<folder>``, sorted, as `sql_file` takes them."""
    return sorted(
        f"{folder}/{path.name}" for path in (bundled_folder("sql") / folder).glob("*.sql")
    )
