"""Puts the REST front together."""

from __future__ import annotations

from fastapi import FastAPI

from ourvidz_gateway.front import Front
from ourvidz_gateway.rest import events, jobs, probes, queues, references
from ourvidz_gateway.rest.errors import ERRORS, handle_errors
from ourvidz_gateway.rest.objects import objects_router
from ourvidz_serving.storage import LocalStore

DESCRIPTION = """
Turns a prompt into pictures and short videos.

Post a job to `/api/queue-job`, then poll `/api/jobs/{id}` or listen to `/api/jobs/{id}/events` until it has ended; its
`assets` are signed URLs. Pictures for a job to follow are posted to `/api/upload-reference` first. Every call but the probes needs `Authorization: Bearer <JWT>`.
"""


def create_rest_app(front: Front) -> FastAPI:
    """Return the ASGI app that serves the REST API, its OpenAPI description, and the objects of a local store."""
    app = FastAPI(title="OurVidz", description=DESCRIPTION, version="1")
    app.state.front = front
    handle_errors(app)
    app.include_router(jobs.router)
    app.include_router(events.router)
    app.include_router(queues.router)
    app.include_router(references.router)
    app.include_router(probes.router)
    if isinstance(front.store, LocalStore):
        app.include_router(objects_router(front.store), responses=ERRORS)
    return app
