"""Puts the REST front together."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from ourvidz_gateway.front import Front
from ourvidz_gateway.rest import assets, events, jobs, probes, queues, references, tickets
from ourvidz_gateway.rest.credits import router as credits_router
from ourvidz_gateway.rest.docs import docs_router
from ourvidz_gateway.rest.errors import handle_errors
from ourvidz_gateway.rest.objects import objects_router
from ourvidz_gateway.rest.openapi import describe
from ourvidz_serving.storage import LocalStore

DESCRIPTION = """
Turns a prompt into pictures and short videos.

Post a job to `/api/queue-job`, then poll `/api/jobs/{id}` or listen to `/api/jobs/{id}/events` until it has ended, or
send `Prefer: wait=30` with it; its `assets` are signed URLs. Pictures for a job to follow are posted to `/api/upload-reference` first. Every call but the probes needs `Authorization: Bearer <JWT>`.
"""


def create_rest_app(front: Front) -> FastAPI:
    """Return the ASGI app that serves the REST API, its OpenAPI description, and the objects of a local store."""
    app = _App(front.settings.cors_origins)
    app.state.front = front
    handle_errors(app)
    app.include_router(jobs.router)
    app.include_router(events.router)
    app.include_router(tickets.router)
    app.include_router(queues.router)
    app.include_router(credits_router)
    app.include_router(references.router)
    app.include_router(assets.router)
    app.include_router(probes.router)
    if isinstance(front.store, LocalStore):
        app.include_router(objects_router(front.store))
    app.include_router(docs_router(app.title))
    describe(app)
    return app


class _App(FastAPI):
    """An app that pages of these origins may call, errors of its own included."""

    def __init__(self, origins: Sequence[str]) -> None:
        # The pages of FastAPI's own load their scripts from somebody else's server.
        super().__init__(title="OurVidz", description=DESCRIPTION, version="1", docs_url=None, redoc_url=None)
        self._origins = origins

    def build_middleware_stack(self) -> ASGIApp:
        """Put what lets other origins in around all else, also around what answers when a handler has failed."""
        stack = super().build_middleware_stack()
        if not self._origins:
            return stack
        return CORSMiddleware(
            stack,
            allow_origins=self._origins,
            allow_methods=["GET", "HEAD", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID", "Prefer"],
            expose_headers=["Retry-After", "Preference-Applied"],
        )
