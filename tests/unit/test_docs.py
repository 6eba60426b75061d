"""The docs name what there is: generated pages are up to date, links lead somewhere."""

import ast
import builtins
import re
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path
from xml.etree import ElementTree

import pytest
import typer

from anomaly.cli.app import COMMANDS, app, load
from anomaly.config_file import VARIABLE
from anomaly.readings.quality import QUALITY_NAMES
from anomaly.settings import GROUPS, PREFIX
from docgen import COMMAND_LINE, DOCS, METRICS, PROJECT, ROOMS, SETTINGS
from docgen.command_line_page import command_line_page
from docgen.metrics_page import metrics_page
from docgen.rooms_picture import CONTRACT, rooms_picture
from docgen.settings_page import settings_page

RECIPES = [DOCS / "how-to" / name for name in ("new-meter-fault-rule.md", "new-signal.md")]
PAGES = [*PROJECT.glob("*.md"), *DOCS.glob("**/*.md")]
INVENTED = {"sql/views/energy_per_site.sql", "benchmarks/results.json"}
"""Files that a reader or a command writes."""
NEVER_EDITED = PROJECT / "sql" / "migrations" / "0001_contract_tables.sql"
"""Databases have it already; 0010_comments.sql replaces the comment that names a page by its old
place."""
GENERATED = {
    SETTINGS: settings_page,
    COMMAND_LINE: command_line_page,
    METRICS: metrics_page,
    ROOMS: rooms_picture,
}


@pytest.mark.parametrize("file", GENERATED, ids=lambda file: file.name)
def test_a_generated_page_is_what_the_product_says_today(file):
    same = file.read_text(encoding="utf-8") == GENERATED[file]()

    assert same, f"{file.relative_to(PROJECT)} is out of date: run `make docs`"


def test_every_setting_that_a_page_names_exists():
    known = {f"{PREFIX}{name.upper()}" for group in GROUPS.values() for name in group.model_fields}
    known.add(VARIABLE)
    for page in PAGES:
        for name in re.findall(r"\bANOMALY_[A-Z_]+[A-Z]\b(?!\*|_)", page.read_text("utf-8")):
            assert name in known, (page, name)


def test_every_quality_stands_in_the_semantics_in_its_order():
    page = (DOCS / "explanation" / "semantics.md").read_text(encoding="utf-8")
    table = page.split("## Quality")[1].split("## ")[0]

    assert tuple(re.findall(r"^\| `(\w+)` \| (?:yes|no)", table, re.MULTILINE)) == QUALITY_NAMES


def test_every_link_leads_to_a_file_and_a_heading():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)\s]+)\)", _prose(page)):
            if target.startswith("https://"):
                continue
            path, _, heading = target.partition("#")
            file = page if not path else page.parent / path
            assert file.exists(), (page, target)
            assert not heading or heading in _headings(file), (page, target)


def test_every_file_that_a_page_names_exists():
    for page in DOCS.glob("**/*.md"):
        text = page.read_text(encoding="utf-8")
        for name in re.findall(r"`((?:plugins|tests|sql|dags|benchmarks|docs)/[\w./-]+)`", text):
            assert (PROJECT / name).exists() or name in INVENTED, (page, name)


def test_every_page_that_the_code_names_exists():
    folders = [PROJECT / name for name in ("benchmarks", "dags", "docker", "docs", "plugins")]
    folders += [PROJECT / name for name in ("sql", "tests")]
    files = [file for folder in folders for file in folder.rglob("*")] + [*PROJECT.glob("*")]
    kinds = {".py", ".sql", ".toml", ".yml"}
    files = [file for file in files if file.suffix in kinds or file.name == "Makefile"]

    assert PROJECT / "pyproject.toml" in files
    for file in sorted({*files} - {NEVER_EDITED}):
        for name in re.findall(r"\bdocs/[\w./-]+\.md\b", file.read_text(encoding="utf-8")):
            assert (PROJECT / name).exists(), (file, name)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.stem)
def test_the_modules_that_a_recipe_names_have_what_it_uses(recipe):
    text = recipe.read_text(encoding="utf-8")
    modules = re.findall(r"`(plugins/[\w/]+\.py)`", text)
    known = set().union(*(_names((PROJECT / module).read_text("utf-8")) for module in modules))
    blocks = re.findall(r"^ *```python\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    code = "\n".join(textwrap.dedent(block) for block in blocks)
    in_ticks = re.findall(r"`(_\w+|[A-Z]\w*\.\w+|\w+(?=\([^`]*\)`))", text)

    used = {*in_ticks, *_names(code)}
    assert len(used) > 10
    gone = sorted(used - known - _made(code) - set(dir(builtins)))
    assert gone == [], f"{recipe.name} names what {', '.join(modules)} do not have"


def test_the_index_leads_to_every_page():
    linked, waiting = set(), [DOCS / "index.md"]
    while waiting:
        page = waiting.pop()
        linked.add(page)
        targets = re.findall(r"\]\(([^)#\s]+\.md)", page.read_text(encoding="utf-8"))
        found = {(page.parent / target).resolve() for target in targets if ":" not in target}
        waiting += [file for file in found - linked if file.is_relative_to(DOCS)]

    assert set(DOCS.glob("**/*.md")) == linked


def test_every_make_target_that_a_page_names_exists():
    makefile = (PROJECT / "Makefile").read_text(encoding="utf-8")
    for page in PAGES:
        for target in re.findall(r"`make ([a-z-]+)|^make ([a-z-]+)", page.read_text("utf-8"), re.M):
            assert re.search(rf"^{''.join(target)}:", makefile, re.MULTILINE), (page, target)


def test_every_command_that_a_page_shows_exists():
    known = set(re.findall(r"^## `anomaly ([a-z ]+)`$", command_line_page(), re.MULTILINE))
    groups = {name.split()[0] for name in known}
    for page in PAGES:
        shown = re.findall(r"(?:^|`)anomaly ([a-z]+)(?: ([a-z]+))?", page.read_text("utf-8"), re.M)
        for word, second in shown:
            assert word in groups, (page, word)
            below = {name for name in known if name.startswith(f"{word} ")}
            assert not (below and word not in known and f"{word} {second}" not in known), (
                page,
                word,
                second,
            )


def test_the_picture_of_the_rooms_is_svg_and_names_every_room_of_the_contract():
    picture = ElementTree.parse(ROOMS)
    shown = {text.text for text in picture.iter("{http://www.w3.org/2000/svg}text")}
    config = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
    (layers,) = (
        contract["layers"]
        for contract in config["tool"]["importlinter"]["contracts"]
        if contract["name"] == CONTRACT
    )

    rooms = {room.strip().removeprefix("anomaly.") for layer in layers for room in layer.split("|")}
    assert rooms <= shown


def test_every_message_that_the_faq_quotes_is_one_that_the_code_has():
    page = (DOCS / "faq.md").read_text(encoding="utf-8")
    quoted = re.findall(r"^\*\*`(.+)`\*\*$", page, re.MULTILINE)
    said = _texts_of_the_code()

    assert len(quoted) > 100
    gone = [message for message in quoted if not any(map(_pattern(message).search, said))]
    assert gone == [], "docs/faq.md quotes messages that the code no longer has"


def _names(code: str) -> set[str]:
    """Every name that code has, of whatever kind; functions of a class also as ``Class.name``."""
    found = set()
    for node in ast.walk(ast.parse(code)):
        for kind in ("id", "attr", "arg", "name"):
            if isinstance(name := getattr(node, kind, None), str):
                found.add(name)
        if isinstance(node, ast.ClassDef):
            functions = (member for member in node.body if isinstance(member, ast.FunctionDef))
            found |= {f"{node.name}.{function.name}" for function in functions}
    return found


def _made(code: str) -> set[str]:
    """The functions and names that code makes."""
    nodes = list(ast.walk(ast.parse(code)))
    functions = {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    names = (node for node in nodes if isinstance(node, ast.Name))
    return functions | {name.id for name in names if isinstance(name.ctx, ast.Store)}


def _pattern(message: str) -> re.Pattern[str]:
    """What a quoted message looks like in the code: an ellipsis stands for anything."""
    pieces = [re.escape(piece.strip()) for piece in message.split("...") if piece.strip()]
    return re.compile(".*?".join(pieces), re.DOTALL)


def _texts_of_the_code() -> list[str]:
    """Every text in the code, with an ellipsis for what is filled in, and every line of the SQL."""
    files = [*(PROJECT / "plugins").rglob("*.py"), *(PROJECT / "dags").glob("*.py")]
    trees = [ast.parse(file.read_text(encoding="utf-8")) for file in files]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    found = [text for node in nodes if id(node) not in docstrings and (text := _text(node))]
    scripts = [file.read_text(encoding="utf-8") for file in (PROJECT / "sql").rglob("*.sql")]
    return [*found, *(line for script in scripts for line in script.splitlines())]


def _text(node: ast.AST) -> str:
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) or " ... " for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return f"{_text(node.left) or ' ... '}{_text(node.right) or ' ... '}"
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    return ""


def _prose(page: Path) -> str:
    """A page without its code, in which brackets mean something else."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)
    return re.sub(r"`[^`\n]*`(?!\])", "", text)


def _headings(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_command_shows_an_example_that_it_takes():
    for name, command in _commands():
        example = re.search(r"Example: (.+)", command.help or "")
        assert example, name
        options = {option for p in command.params for option in (*p.opts, *p.secondary_opts)}
        first = [part for part in re.split(r"[;|>]", example[1]) if f"anomaly {name}" in part]
        assert first, name
        for word in re.findall(r"(?<!\S)--[a-z-]+", first[0]):
            assert word in options, (name, word)


def test_the_line_of_a_command_in_the_help_says_what_the_command_says():
    context = typer.main.get_command(app)
    assert list(context.commands) == list(COMMANDS)
    for name, (_, line) in COMMANDS.items():
        assert load(name).help, name
        assert len(f"{name} {line}") < 100, name


def test_help_imports_nothing_heavy():
    """So that it comes at once."""
    code = (
        "import sys, anomaly.cli.app as cli\n"
        "try:\n    cli.app(['--help'])\nexcept SystemExit:\n    pass\n"
        "print([name for name in ('pandas', 'numpy', 'sqlalchemy', 'sklearn', 'pydantic',"
        " 'rich.markdown') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def _commands():
    """Every command by its words, without groups that only show their help."""
    waiting = [(name, load(name)) for name in COMMANDS]
    for name, command in waiting:
        below = getattr(command, "commands", {})
        waiting += [(f"{name} {word}", each) for word, each in below.items()]
        if not below or not command.no_args_is_help:
            yield name, command
