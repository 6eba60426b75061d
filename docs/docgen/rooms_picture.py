"""The picture of the rooms of ``plugins/anomaly``, made from the import contracts."""

import tomllib
from html import escape
from typing import Any

from docgen import PROJECT

CONTRACT = "Rooms import downward only"
"""Name of the contract that orders the rooms."""

_WIDTH, _HEIGHT, _GAP = 560, 40, 18
_NOTE_WIDTH, _MARGIN = 330, 20
_FONT = "font-family='Helvetica, Arial, DejaVu Sans, sans-serif'"


def rooms_picture() -> str:
    """The picture as SVG: a row per layer, the highest first, and who may import what."""
    contracts = _contracts()
    layers = [layer.split(" | ") for layer in contracts["layers"]["layers"]]
    height = _MARGIN * 2 + len(layers) * (_HEIGHT + _GAP) + 10
    lines = [
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{_WIDTH + _NOTE_WIDTH}'"
        f" height='{height}' viewBox='0 0 {_WIDTH + _NOTE_WIDTH} {height}' role='img'>",
        "<title>The rooms of plugins/anomaly: each imports those below it only</title>",
        "<!-- Written by `make docs` from [tool.importlinter] in pyproject.toml. -->",
        f"<rect width='{_WIDTH + _NOTE_WIDTH}' height='{height}' fill='#ffffff'/>",
    ]
    for number, layer in enumerate(layers):
        lines += _layer(layer, _MARGIN + number * (_HEIGHT + _GAP), contracts["allowed"])
        if number:
            lines += _arrow(_MARGIN + number * (_HEIGHT + _GAP))
    return "\n".join([*lines, "</svg>"]) + "\n"


def _contracts() -> dict[str, Any]:
    """The layers, and for each forbidden library the rooms that may import it all the same."""
    config = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = config["tool"]["importlinter"]["contracts"]
    (layers,) = (contract for contract in contracts if contract["name"] == CONTRACT)
    rooms = [room for layer in layers["layers"] for room in layer.split(" | ")]
    allowed: dict[str, list[str]] = {}
    for contract in contracts:
        if contract["type"] != "forbidden" or "anomaly" in contract["source_modules"]:
            continue
        for room in rooms:
            if room not in contract["source_modules"] and _is_package(room):
                allowed.setdefault(room, []).extend(contract["forbidden_modules"])
    return {"layers": layers, "allowed": allowed}


def _is_package(room: str) -> bool:
    return (PROJECT / "plugins" / room.replace(".", "/")).is_dir()


def _layer(rooms: list[str], top: int, allowed: dict[str, list[str]]) -> list[str]:
    width = (_WIDTH - _MARGIN - _GAP * (len(rooms) - 1)) / len(rooms)
    lines = []
    for place, room in enumerate(rooms):
        left = _MARGIN + place * (width + _GAP)
        lines.append(
            f"<rect x='{left:g}' y='{top}' width='{width:g}' height='{_HEIGHT}' rx='6'"
            " fill='#eaf1fb' stroke='#3b6ea8'/>"
        )
        lines.append(
            f"<text x='{left + width / 2:g}' y='{top + 26}' text-anchor='middle' font-size='16'"
            f" {_FONT}>{escape(room.removeprefix('anomaly.'))}</text>"
        )
    notes = [
        f"{room.removeprefix('anomaly.')} may import {', '.join(allowed[room])}"
        for room in rooms
        if room in allowed
    ]
    lines += [
        f"<text x='{_WIDTH + _GAP}' y='{top + 17 + 18 * number}' font-size='12' fill='#555555'"
        f" {_FONT}>{escape(note)}</text>"
        for number, note in enumerate(notes)
    ]
    return lines


def _arrow(top: int) -> list[str]:
    """From the layer above down to the one that begins at `top`."""
    middle = _MARGIN + (_WIDTH - _MARGIN) // 2
    return [
        f"<path d='M {middle} {top - _GAP} V {top - 4} m -4 -5 l 4 5 l 4 -5' fill='none'"
        " stroke='#3b6ea8'/>"
    ]
