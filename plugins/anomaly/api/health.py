"""Calls of whoever watches the API: whether it lives, whether it can judge, and its metrics."""

import asyncio

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from anomaly import __version__
from anomaly.api.answers import Alive, Health, refusals
from anomaly.api.door import LIVE, Measures
from anomaly.api.refresher import Refresher
from anomaly.scoring.record_judging import RecordJudge

_FIRST_LOOK_SECONDS = 10.0


def health(judge: RecordJudge, watch: Refresher, measures: Measures) -> APIRouter:
    """The three calls; none of them waits for a worker or for the database."""
    router = APIRouter(tags=["health"])

    @router.get(LIVE, response_model=Alive)
    async def live() -> dict[str, str]:
        """Whether the process answers; the only call that needs no name."""
        return {"status": "ok"}

    @router.get(
        "/health",
        response_model=Health,
        responses={503: {"model": Health}, **refusals(401, 403, 429, 504)},
    )
    async def ready() -> Response:
        """Whether records can be judged, as of the last look, a few seconds ago."""
        trouble = await asyncio.to_thread(watch.trouble, _FIRST_LOOK_SECONDS)
        version = judge.version
        said = "ok" if version is not None else "there is no model: run anomaly train --promote"
        if trouble:
            said = "the server cannot judge now, its log says why"
        content = {"status": said, "model_version": version, "version": __version__}
        return JSONResponse(content, 200 if said == "ok" else 503)

    @router.get("/metrics", response_class=Response, responses=refusals(401, 403, 429))
    async def metrics() -> Response:
        """Metrics of this process for Prometheus."""
        return Response(generate_latest(measures.registry), media_type=CONTENT_TYPE_LATEST)

    return router
