"""Writes the pages of the docs that are made from the product: ``make docs``.

`PAGES` says what is made from what. A test makes each page again and compares it with the
file, so a page that is out of date is named together with the command that writes it again.
"""

from pathlib import Path

DOCS = Path(__file__).parents[1]
PROJECT = DOCS.parent

SETTINGS = DOCS / "reference" / "settings.md"
COMMAND_LINE = DOCS / "reference" / "command-line.md"
METRICS = DOCS / "reference" / "metrics.md"
TABLES = DOCS / "reference" / "tables-and-views.md"
ROOMS = DOCS / "pictures" / "rooms.svg"

NOTE = "<!-- Written by `make docs`; do not edit. -->"
"""First line of every page that is written here."""
