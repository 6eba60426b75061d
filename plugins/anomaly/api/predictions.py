"""The prototype's calls: judge one record, or several."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from fastapi import APIRouter, HTTPException
from fastapi.responses import Response
from pydantic import TypeAdapter
from pydantic_core import from_json, to_json
from starlette.requests import Request

from anomaly.api.answers import Batch, Predictions, RealTimeRecord, Record, refusals
from anomaly.api.door import Measures
from anomaly.api.workers import Workers
from anomaly.errors import RecordError
from anomaly.scoring.record_judging import RecordJudge
from anomaly.settings import Settings, TimestampLabel

_BESIDE = ("anomaly_score", "reason", "quality", "model_version")
_REFUSED = refusals(401, 403, 413, 422, 429, 503, 504)

Records = list[Any]


def predictions(
    judge: RecordJudge, settings: Settings, workers: Workers, measures: Measures
) -> APIRouter:
    """The two calls."""
    router = APIRouter(tags=["predictions"])

    async def answer(request: Request, read: Callable[[Any], tuple[Records, Any]]) -> Response:
        body = await request.body()
        deadline = time.monotonic() + settings.api.api_seconds

        def work() -> bytes:
            records, previous = read(_parsed(body))
            _refuse_too_many(records, previous, settings.api.api_most_records)
            verdicts = judge.judge(records, previous, deadline)
            if verdicts is None:
                return to_json({"prediction_result": []})
            abnormal = int(verdicts["anomaly"].sum())
            measures.verdicts.labels("abnormal").inc(abnormal)
            measures.verdicts.labels("normal").inc(len(verdicts) - abnormal)
            rows = _rows(verdicts, settings)
            return to_json({"prediction_result": rows}, inf_nan_mode="null")

        return Response(await workers.do(work), media_type="application/json")

    @router.post(
        "/predict_real_time",
        response_model=Predictions,
        responses=_REFUSED,
        openapi_extra=_takes(RealTimeRecord),
        summary="Judge one record",
    )
    async def predict_real_time(request: Request) -> Response:
        """Judge one record by the readings before it, which the meter table or `previous` has."""
        return await answer(request, _one_record)

    @router.post(
        "/predict_batch",
        response_model=Predictions,
        responses=_REFUSED,
        openapi_extra=_takes(list[Record] | Batch),
        summary="Judge several records",
    )
    async def predict_batch(request: Request) -> Response:
        """Judge records, in any order, by each other and by the readings before them."""
        return await answer(request, _several_records)

    return router


def _takes(form: Any) -> dict[str, Any]:
    schema = TypeAdapter(form).json_schema(ref_template="#/components/schemas/{model}")
    definitions = schema.pop("$defs", {})
    inlined = _inlined(schema, definitions)
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": inlined}}}}


def _inlined(schema: Any, definitions: dict[str, Any]) -> Any:
    """A schema without references: FastAPI knows nothing of the models of such a body."""
    if isinstance(schema, list):
        return [_inlined(part, definitions) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inlined(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    return {name: _inlined(part, definitions) for name, part in schema.items()}


def _parsed(body: bytes) -> Any:
    try:
        return from_json(body)
    except ValueError as error:
        raise RecordError(f"the body is no JSON: {error}") from None


def _one_record(body: Any) -> tuple[Records, Any]:
    if not isinstance(body, dict):
        raise RecordError("the body is no record: send one object, and a list to /predict_batch")
    return [body], body.pop("previous", None)


def _several_records(body: Any) -> tuple[Records, Any]:
    if isinstance(body, dict) and "records" in body:
        return _list(body["records"], "records"), body.get("previous")
    return _list(body, "the body"), None


def _list(value: Any, name: str) -> Records:
    if not isinstance(value, list):
        raise RecordError(f"{name} is no list: send a list of records")
    return value


def _refuse_too_many(records: Records, previous: Any, most: int) -> None:
    """Refuse more records than are taken at once, and what is no list of earlier ones."""
    if previous is not None:
        _list(previous, "previous")
    sent = len(records) + len(previous or ())
    if sent > most:
        raise HTTPException(413, f"{sent} records are too many: send no more than {most} at once")


def _rows(verdicts: pd.DataFrame, settings: Settings) -> list[dict[str, Any]]:
    """Verdicts as they are answered, by time, then machine."""
    ordered = verdicts.sort_values(["utc_timestamp", "machine_id"])
    stamps = ordered["utc_timestamp"].to_numpy(dtype="datetime64[us]")
    if settings.meter.timestamp_label is TimestampLabel.END:
        stamps = stamps + np.timedelta64(settings.meter.interval)
    names = ["machine_id", "anomaly", *(() if settings.api.api_strict else _BESIDE)]
    columns: Sequence[list[Any]] = [ordered[name].tolist() for name in names]
    keys = ("utc_timestamp", *names)
    return [dict(zip(keys, row, strict=True)) for row in zip(_texts(stamps), *columns, strict=True)]


def _texts(stamps: "np.ndarray[Any, np.dtype[np.datetime64]]") -> list[str]:
    """Times as the prototype wrote them: UTC, without a zone."""
    whole = bool((stamps == stamps.astype("datetime64[s]")).all())
    texts: list[str] = np.datetime_as_string(stamps, unit="s" if whole else "us").tolist()
    return texts
