"""The docs name what there is; run this file to write the table of settings anew."""

import re
from enum import EnumMeta
from pathlib import Path

from anomaly.schema import QUALITY_NAMES
from anomaly.settings import PREFIX, Settings

PROJECT = Path(__file__).parents[2]
SETTINGS = PROJECT / "docs" / "settings.md"


def settings_page() -> str:
    lines = [
        "# Settings",
        "",
        "Environment variables, read where Airflow parses DAGs and runs tasks, and where",
        "the command line runs. A wrong value or an unknown name is refused at start. The",
        "database of tasks is Airflow's connection `anomaly_db`.",
        "",
        "| variable | default | meaning |",
        "|---|---|---|",
    ]
    for name, field in Settings.model_fields.items():
        default = field.get_default(call_default_factory=True)
        shown = getattr(default, "value", default)
        allowed = ""
        if isinstance(field.annotation, EnumMeta):
            allowed = " (" + ", ".join(f"`{item.value}`" for item in field.annotation) + ")"
        text = f"`{shown}`" if shown not in ("", {}) else ""
        lines.append(f"| `{PREFIX}{name.upper()}` | {text} | {field.description}{allowed} |")
    return "\n".join(lines) + "\n"


def test_every_setting_stands_in_the_docs_with_its_default():
    assert SETTINGS.read_text(encoding="utf-8") == settings_page()


def test_every_quality_stands_in_the_semantics_in_its_order():
    page = (PROJECT / "docs" / "semantics.md").read_text(encoding="utf-8")
    table = page.split("## Quality")[1].split("## ")[0]

    assert tuple(re.findall(r"^\| `(\w+)` \| (?:yes|no)", table, re.MULTILINE)) == QUALITY_NAMES


def test_every_link_between_the_docs_leads_somewhere():
    for page in [*PROJECT.glob("*.md"), *PROJECT.glob("docs/**/*.md")]:
        for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
            assert target.startswith("https://") or (page.parent / target).exists(), (page, target)


def test_every_make_target_of_the_readme_exists():
    makefile = (PROJECT / "Makefile").read_text(encoding="utf-8")
    for page in PROJECT.glob("*.md"):
        for target in re.findall(r"`?make ([a-z-]+)", page.read_text(encoding="utf-8")):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), (page, target)


if __name__ == "__main__":
    SETTINGS.write_text(settings_page(), encoding="utf-8")
