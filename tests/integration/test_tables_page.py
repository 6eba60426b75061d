"""The page of tables and views says what the comments in the database say."""

from deployment import rows
from docgen import PROJECT, TABLES
from docgen.tables_page import tables_page, without_comment

BI_LOGIN = PROJECT / "docs" / "how-to" / "bi-login.md"


def test_the_page_of_tables_is_what_the_database_says_today(database):
    same = TABLES.read_text(encoding="utf-8") == tables_page(database.engine)

    assert same, f"{TABLES.relative_to(PROJECT)} is out of date: run `make docs`"


def test_every_view_for_bi_says_which_question_it_answers(database):
    views = rows(
        database,
        "SELECT relname, obj_description(oid, 'pg_class') FROM pg_class"
        " WHERE relnamespace = 'bi'::regnamespace ORDER BY 1",
    )

    assert len(views) == 18
    assert [name for name, about in views if not about.endswith("?")] == []
    page = BI_LOGIN.read_text()
    assert [name for name, _ in views if f"| `bi.{name}` |" not in page] == []


def test_every_table_view_and_column_has_a_comment(database):
    assert without_comment(database.engine) == []
