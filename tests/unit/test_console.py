"""What commands print: text as text, tables whole."""

import pytest
from rich.table import Table

from anomaly.cli.console import fail, print_table, say
from anomaly.errors import AnomalyError

FORGED = "Fan\nerror: forged\x1b[2J\x9b\u202e\x07"
PLAIN = r"Fan\nerror: forged\x1b[2J\x9b\u202e\x07"


def test_each_text_is_one_line_whatever_is_in_it(capsys):
    say(f"machine 1 ({FORGED})", "next")
    with pytest.raises(SystemExit):
        fail(*AnomalyError(f"{FORGED} is at postgresql://me:secret@host", "next").args)

    printed = capsys.readouterr()
    assert printed.out == f"machine 1 ({PLAIN})\nnext\n"
    assert printed.err == f"error: {PLAIN} is at postgresql://me:***@host\nnext\n"


def test_a_table_is_printed_whole_and_its_brackets_are_no_markup(capsys):
    table = Table("found", title="Faults found")
    table.add_row("0.92 [0.90,0.94]")
    table.add_row("x" * 200)

    print_table(table)

    printed = capsys.readouterr().out
    assert "0.92 [0.90,0.94]" in printed
    assert "x" * 200 in printed
