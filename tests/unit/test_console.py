"""What commands print: text as text, tables whole."""

from rich.table import Table

from anomaly.cli.console import print_table


def test_a_table_is_printed_whole_and_its_brackets_are_no_markup(capsys):
    table = Table("found", title="Faults found")
    table.add_row("0.92 [0.90,0.94]")
    table.add_row("x" * 200)

    print_table(table)

    printed = capsys.readouterr().out
    assert "0.92 [0.90,0.94]" in printed
    assert "x" * 200 in printed
