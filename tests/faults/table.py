"""The table of injected faults in the docs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- faults: begin -->\n", "<!-- faults: end -->\n"
_HEAD = (
    "| | fault | injected | lost | doubled | wrong | recovered in (middle, longest) |\n"
    "|---|---|---|---|---|---|---|\n"
)


def write_table(rows: Sequence[Mapping[str, Any]], page: Path) -> None:
    """Write the rows between the page's markers."""
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    lines = [
        f"| {row['number']} | {row['fault']} | {row['times']} | {row['lost']} | {row['doubled']}"
        f" | {row['wrong']} | {row['seconds']:.1f} s, {row['longest']:.1f} s |\n"
        for row in rows
    ]
    page.write_text(before + BEGIN + _HEAD + "".join(lines) + END + after, encoding="utf-8")
