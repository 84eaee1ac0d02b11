"""Every error of the REST front in the reference's one shape."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from ourvidz.rpc_status import FieldViolation
from ourvidz_gateway.errors import GatewayError, InvalidRequest
from ourvidz_gateway.rest.models import ErrorReply
from ourvidz_serving.errors import ServiceError

LINGER_S = 2.0
LINGER_BYTES = 64 * 2**20
"""How long, and for how much more, the sender of a body that is too large has to read why."""

ERRORS: dict[int | str, dict[str, Any]] = {
    "default": {"model": ErrorReply, "description": "It could not be done; `error` says why."}
}
"""The responses that every route documents."""


def handle_errors(app: FastAPI) -> None:
    """Let every error of the app, the framework's own included, be answered in our shape."""
    app.add_exception_handler(ServiceError, _answer_service_error)
    app.add_exception_handler(RequestValidationError, _answer_validation_error)
    app.add_exception_handler(HTTPException, _answer_http_error)
    app.add_exception_handler(Exception, _answer_unexpected_error)


def _answer_service_error(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ServiceError)  # noqa: S101  # the handler is registered for this class
    headers = {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    if error.http_status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    fields = [f"field={violation.field}" for violation in error.violations]
    content: dict[str, Any] = {
        "success": False,
        "error": error.message,
        "details": " ".join([f"reason={error.reason}", *fields]),
        "retryable": error.retryable if isinstance(error, GatewayError) else error.http_status in (429, 503),
    }
    if isinstance(error, GatewayError) and error.suggested_action:
        content["suggestedAction"] = error.suggested_action
    if isinstance(error, GatewayError) and error.flag:
        content[error.flag] = True
    if error.http_status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return _CutOff(content, error.http_status, headers)
    return JSONResponse(content, error.http_status, headers)


class _CutOff(JSONResponse):
    """Answers a request amid its body, and ends the connection once its sender had time to read the answer.

    Without an end, the server would take in whatever else is sent; with one at once, the sender could meet a broken
    connection before the answer.
    """

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        headers = [*self.raw_headers, (b"connection", b"close")]
        await send({"type": "http.response.start", "status": self.status_code, "headers": headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        left = LINGER_BYTES
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                while left > 0 and (message := await receive()).get("more_body"):
                    left -= len(message["body"])
        await send({"type": "http.response.body"})


def _answer_validation_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101  # the handler is registered for this class
    violations = [
        FieldViolation(field=".".join(str(part) for part in line["loc"][1:]), description=line["msg"])
        for line in error.errors()
    ]
    message = "; ".join(f"{violation.field}: {violation.description}" for violation in violations)
    return _answer_service_error(request, InvalidRequest(f"{message}.", violations=violations))


def _answer_http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101  # the handler is registered for this class
    messages = {404: "There is nothing at this address.", 405: f"This address does not take {request.method}."}
    return _plain(messages.get(error.status_code, f"{error.detail}."), error.status_code, error.headers)


def _answer_unexpected_error(_request: Request, _error: Exception) -> JSONResponse:
    # Starlette raises the error again once this is sent, so that the server logs it with its traceback.
    return _plain("Something went wrong on our side.", 500, None)


def _plain(message: str, status: int, headers: Mapping[str, str] | None) -> JSONResponse:
    content = {"success": False, "error": message, "details": HTTPStatus(status).phrase, "retryable": False}
    return JSONResponse(content, status, headers)
