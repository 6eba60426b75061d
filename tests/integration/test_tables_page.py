"""The page of tables and views says what the comments in the database say."""

from docgen import PROJECT, TABLES
from docgen.tables_page import tables_page, without_comment


def test_the_page_of_tables_is_what_the_database_says_today(database):
    same = TABLES.read_text(encoding="utf-8") == tables_page(database.engine)

    assert same, f"{TABLES.relative_to(PROJECT)} is out of date: run `make docs`"


def test_every_table_view_and_column_has_a_comment(database):
    assert without_comment(database.engine) == []
