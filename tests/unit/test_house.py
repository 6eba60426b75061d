"""The house keeps its order: rooms say what they are, one module per table names its queries."""

import ast
import re
from pathlib import Path

import pytest

import anomaly

PACKAGE = Path(anomaly.__file__).parent
QUERIES = Path(__file__).parents[2] / "sql" / "queries"
ROOMS = sorted(path.parent for path in PACKAGE.glob("*/__init__.py"))
ASKS = ("rows", "row", "value", "run", "frame", "copy_in", "copy_columns", "run_composed")


def sources() -> dict[Path, str]:
    return {path: path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")}


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_a_room_says_what_lives_there_and_what_it_may_import(room):
    said = ast.get_docstring(ast.parse((room / "__init__.py").read_text(encoding="utf-8"))) or ""

    assert len(said.split()) > 20, f"{room.name}/__init__.py says too little"
    assert "import" in said, f"{room.name}/__init__.py does not say what it may import"


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_a_room_names_every_module_that_lives_there(room):
    said = ast.get_docstring(ast.parse((room / "__init__.py").read_text(encoding="utf-8"))) or ""
    modules = [*room.glob("[!_]*.py"), *(folder.parent for folder in room.glob("*/__init__.py"))]

    unnamed = [module.stem for module in modules if f"`{module.stem}`" not in said]
    assert unnamed == [], f"{room.name}/__init__.py does not name {', '.join(unnamed)}"


@pytest.mark.parametrize("folder", sorted(QUERIES.iterdir()), ids=lambda folder: folder.name)
def test_the_queries_of_a_folder_are_named_by_the_module_of_that_name_alone(folder):
    module = PACKAGE / "database" / f"{folder.name}.py"
    others = {path: text for path, text in sources().items() if path != module}

    for query in folder.glob("*.sql"):
        by_path = f'"{folder.name}/{query.stem}"'
        composed = re.search(rf'f"{folder.name}/\{{\w+\}}"', module.read_text()) is not None
        named = by_path in module.read_text() or (
            composed and f'"{query.stem}"' in module.read_text()
        )
        assert named, f"sql/queries/{folder.name}/{query.name} is used by nothing: delete it"
        strangers = [str(path) for path, text in others.items() if by_path in text]
        assert strangers == [], f"{by_path} belongs to {module.name}"


def test_nothing_but_the_database_room_runs_a_query():
    for path, text in sources().items():
        if path.parent.name == "database":
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Attribute) and node.attr in ASKS:
                owner = ast.unparse(node.value)
                assert owner not in ("transaction", "self.transaction"), (
                    f"{path.relative_to(PACKAGE)}:{node.lineno} runs a query:"
                    " give the table's module in database/ a function for it"
                )


def test_no_module_is_longer_than_a_thousand_lines():
    long = {str(path): len(text.splitlines()) for path, text in sources().items()}

    assert {path: lines for path, lines in long.items() if lines > 1000} == {}
