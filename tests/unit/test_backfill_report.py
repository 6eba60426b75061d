"""The report of a backfill: sums of chunks, incidents told once, tables that data cannot break."""

from datetime import timedelta

from anomaly.operations.backfill_report import (
    BackfillReport,
    IncidentsChanged,
    as_markdown,
    as_note,
)
from anomaly.scoring.publishing import Flips

QUARTER = timedelta(minutes=15)


def incident(first, last, number=None, machine=1, reason="more than usual"):
    """Make an incident of a day, from hour to hour."""
    return {
        "incident_id": number,
        "machine_id": machine,
        "kind": "machine",
        "started_at": f"2026-03-02T{first}:00+00:00",
        "last_at": f"2026-03-02T{last}:00+00:00",
        "severity": "warning",
        "reason": reason,
    }


def test_reports_of_chunks_add_up():
    one = BackfillReport(10, 10, 4, 3, 1, 0, 2, Flips({1: (1, 2)}), seconds=0.5)
    other = BackfillReport(5, 5, 0, 1, 0, 2, 0, Flips({1: (1, 0), 2: (0, 4)}), seconds=0.25)

    total = one + other

    assert (total.read, total.inserted, total.updated, total.unchanged) == (15, 4, 4, 7)
    assert total.flips.of_machine == {1: (2, 2), 2: (0, 4)}
    assert total.flipped_share == 8 / 11
    assert total.seconds == 0.75
    assert BackfillReport.from_dict(total.as_dict()) == total
    strangers = BackfillReport(strangers=("b", "a")) + BackfillReport(strangers=("c", "a"))
    assert strangers.strangers == ("a", "b", "c")
    assert BackfillReport().flipped_share == 0


def test_an_incident_over_two_previewed_chunks_is_one():
    told = IncidentsChanged(
        opened=(
            incident("06:00", "06:30"),
            incident("04:00", "05:45"),
            incident("05:50", "06:00", machine=2),
            incident("08:00", "09:00"),
        )
    )

    found = told.joined(QUARTER).opened

    assert [
        (one["machine_id"], one["started_at"][11:16], one["last_at"][11:16]) for one in found
    ] == [
        (1, "04:00", "06:30"),
        (1, "08:00", "09:00"),
        (2, "05:50", "06:00"),
    ]


def test_what_one_chunk_opened_and_a_later_one_took_away_is_not_told():
    told = IncidentsChanged(
        opened=(incident("04:00", "05:00", 7), incident("08:00", "09:00", 8)),
        merged=(incident("04:00", "05:00", 7),),
        withdrawn=(incident("01:00", "02:00", 3), incident("01:00", "02:00", 3)),
    )

    found = told.joined(QUARTER)

    assert [one["incident_id"] for one in found.opened] == [8]
    assert found.merged == ()
    assert [one["incident_id"] for one in found.withdrawn] == [3]


def test_no_text_from_data_breaks_a_table():
    report = BackfillReport(
        4,
        flips=Flips({1: (1, 0)}),
        incidents=IncidentsChanged(
            opened=(incident("04:00", "05:00", reason="a | b\n**c** [d](e)"),)
        ),
    )

    words = as_markdown(report, "Title", {"range": "all"}, {1: "Fan |new| <3>"}, is_preview=True)

    rows = [line for line in words.splitlines() if line.startswith("|")]
    assert all(line.replace("\\|", "").count("|") in (3, 4, 5) for line in rows)
    assert "Fan \\|new\\| \\<3\\>" in words
    assert "a \\| b \\*\\*c\\*\\* \\[d\\](e)" in words


def test_no_text_from_data_steers_who_reads_it():
    evil = "Fan\n| forged | \x1b[2J\x9b\u202e\x07"
    report = BackfillReport(
        4,
        flips=Flips({1: (1, 0)}),
        incidents=IncidentsChanged(opened=(incident("04:00", "05:00", reason=evil),)),
        strangers=(evil,),
    )

    words = as_markdown(report, "Title", {"machines": evil}, {1: evil}, is_preview=True)

    assert {one for one in words if not one.isprintable()} == {"\n"}
    assert not [line for line in words.splitlines() if line.startswith("| forged")]
    assert words.count(r"Fan \| forged \| \\x1b\[2J\\x9b\\u202e\\x07") == 5


def test_long_tables_are_cut_and_say_so():
    report = BackfillReport(100, flips=Flips({machine: (machine, 0) for machine in range(1, 31)}))

    words = as_markdown(report, "Title", {}, {}, estimated=100, is_preview=False)

    assert "| 30 | 30 | 0 |" in words
    assert "| 10 | 10 | 0 |" not in words
    assert "and 10 more" in words
    assert "| time estimated | 2 min |" in words


def test_a_note_fits():
    report = BackfillReport(10**12, 10**12, 10**12, 10**12, 10**12, 10**12, 10**12, seconds=10**6)

    assert len(as_note(report, "Backfill 1")) < 900
