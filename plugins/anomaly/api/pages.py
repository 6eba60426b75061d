"""Rows as a page of JSON or CSV, with the place where the next page begins."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import HTTPException, Query
from fastapi.responses import Response
from pydantic_core import to_json
from starlette.requests import Request

from anomaly.wording import csv_cell

Limit = Annotated[int, Query(ge=1, le=10_000, description="rows of a page")]
After = Annotated[
    str | None, Query(description="`next` of the page before", max_length=100, examples=[])
]

Row = Mapping[str, Any]


def wants_csv(request: Request) -> bool:
    """Whether the header Accept prefers CSV to JSON."""
    weights = {"text/csv": 0.0, "application/json": 0.0}
    for part in request.headers.get("accept", "*/*").split(","):
        name, *parameters = (piece.strip().lower() for piece in part.split(";"))
        weight = _weight(parameters)
        if name in weights:
            weights[name] = max(weights[name], weight)
        elif name in ("*/*", "application/*"):
            weights["application/json"] = max(weights["application/json"], weight)
        elif name == "text/*":
            weights["text/csv"] = max(weights["text/csv"], weight)
    return weights["text/csv"] > weights["application/json"]


def _weight(parameters: Sequence[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name == "q":
            try:
                return min(max(float(value), 0.0), 1.0)
            except ValueError:
                return 0.0
    return 1.0


def page(
    request: Request,
    name: str,
    rows: Sequence[Row],
    columns: Sequence[str],
    limit: int,
    place: Sequence[str],
) -> Response:
    """A page of rows.

    Parameters
    ----------
    rows : sequence
        One more than `limit` where there is another page.
    place : sequence of str
        The columns whose values are the place where the next page begins.
    """
    shown = [{column: row[column] for column in columns} for row in rows[:limit]]
    following = (
        ",".join(_text(shown[-1][column]) for column in place) if len(rows) > limit else None
    )
    headers = {} if following is None else {"Link": _link(request, following)}
    headers["Vary"] = "Accept"
    if not wants_csv(request):
        content = to_json({name: shown, "next": following}, inf_nan_mode="null")
        return Response(content, media_type="application/json", headers=headers)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([csv_cell(row[column]) for column in columns] for row in shown)
    return Response(text.getvalue(), media_type="text/csv", headers=headers)


def whole_number(after: str, highest: int) -> int:
    """The number that a place is.

    Raises
    ------
    HTTPException
        422, when it is none.
    """
    if not (after.isascii() and after.isdigit()) or int(after) > highest:
        raise HTTPException(422, f"after is {after!r}: send the `next` of the page before")
    return int(after)


def _text(value: Any) -> str:
    return str(csv_cell(value)).replace("+00:00", "Z")


def _link(request: Request, following: str) -> str:
    """The next page, below the same address as this one."""
    asked = [(key, value) for key, value in request.query_params.multi_items() if key != "after"]
    return f'<?{urlencode([*asked, ("after", following)])}>; rel="next"'
