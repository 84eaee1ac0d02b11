"""Every error of the REST front in the reference's one shape."""

from __future__ import annotations

import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from ourvidz.rpc_status import FieldViolation
from ourvidz_gateway.errors import GatewayError, InvalidRequest
from ourvidz_gateway.rest.models import ErrorReply
from ourvidz_serving.errors import ServiceError

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
    return JSONResponse(content, error.http_status, headers)


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
