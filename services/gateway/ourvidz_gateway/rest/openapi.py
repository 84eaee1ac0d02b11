"""The description of the REST API: what FastAPI finds out by itself, and what only we know."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from ourvidz_gateway.rest.models import ErrorReply

# FastAPI adds these to every route that has a parameter; ours answer 400, in the shape of all errors.
_NEVER_SENT = "#/components/schemas/HTTPValidationError"
_OF_NEVER_SENT = ("HTTPValidationError", "ValidationError")


def describe(app: FastAPI) -> None:
    """Let the app describe itself, at /openapi.json, as it is."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _described(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way to do this


def _described(app: FastAPI) -> dict[str, Any]:
    schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    for operations in schema["paths"].values():
        for operation in operations.values():
            answers = operation["responses"]
            if _schema_of(answers.get("422", {})) == _NEVER_SENT:
                del answers["422"]
            for answer in answers.values():
                for content in answer.get("content", {}).values():
                    if "itemSchema" in content:
                        # FastAPI calls any body a string that is not JSON; this one is told event by event.
                        content.pop("schema", None)
    schemas = schema["components"]["schemas"]
    for name in _OF_NEVER_SENT:
        schemas.pop(name, None)
    schemas["ErrorReply"] = ErrorReply.model_json_schema()
    return schema


def _schema_of(answer: dict[str, Any]) -> str | None:
    found: str | None = answer.get("content", {}).get("application/json", {}).get("schema", {}).get("$ref")
    return found
