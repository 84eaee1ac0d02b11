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
from ourvidz_gateway.errors import (
    BodyTooLarge,
    DatabaseUnavailable,
    FileTooLarge,
    GatewayError,
    IdentityProviderUnavailable,
    InsufficientCredits,
    InvalidPrompt,
    InvalidQuantity,
    InvalidReferenceImage,
    InvalidRequest,
    InvalidSeed,
    NoRenderer,
    PromptRefused,
    QueueFull,
    RateLimited,
    Unauthenticated,
    UnknownJobType,
)
from ourvidz_serving.errors import ServiceError

LINGER_S = 2.0
LINGER_BYTES = 64 * 2**20
"""How long, and for how much more, the sender of a body that is too large has to read why."""


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
    content = _content(error)
    if error.http_status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return _CutOff(content, error.http_status, headers)
    return JSONResponse(content, error.http_status, headers)


def _content(error: ServiceError) -> dict[str, Any]:
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
    return content


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


Responses = dict[int | str, dict[str, Any]]
"""What a route can answer, by status, as FastAPI takes it for its description of the API."""

ERROR_SCHEMA = "#/components/schemas/ErrorReply"
"""Where the description of the API has the one shape of all errors; see `rest.openapi`."""

_EXAMPLES = (
    InvalidRequest("Credits must be an integer, and at least 1 for video_fast.", field="metadata.credits"),
    UnknownJobType("sdxl_image_slow", valid=["sdxl_image_fast", "sdxl_image_high", "image_fast", "image_high"]),
    InvalidPrompt("A prompt is required.", field="metadata.prompt"),
    PromptRefused("The prompt is not allowed here.", field="metadata.prompt"),
    InvalidQuantity("sdxl_image_fast makes 1, 3 or 6 images at a time.", field="metadata.num_images"),
    InvalidSeed("The seed must be an integer from 0 to 4294967295.", field="metadata.seed"),
    InvalidReferenceImage(
        'The reference image can\'t be used: the host "storage.example.com" is not allowed; its operator lists allowed '
        "hosts in OURVIDZ_REFERENCE_HOSTS.",
        field="metadata.reference_image_url",
    ),
    BodyTooLarge("The body is larger than 1,048,576 bytes."),
    FileTooLarge("The file is over 10 MB.", field="file"),
    Unauthenticated("A token is missing: send the header `Authorization: Bearer <token>`."),
    InsufficientCredits("The job costs 2 credits; there are 1 to spend."),
    RateLimited("50 of your jobs have not ended yet, and no more than 50 may be open at once."),
    NoRenderer("No enhancer is configured, so image7b_fast_enhanced can't be made here."),
    QueueFull("1000 jobs wait already; no more are taken."),
)
"""One of each kind of error whose words do not follow from its class."""

_HEADERS = {
    401: {"WWW-Authenticate": {"description": "Always `Bearer`.", "schema": {"type": "string"}}},
    429: {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}},
    503: {"Retry-After": {"description": "Seconds to wait, where waiting helps.", "schema": {"type": "integer"}}},
}


def errors(*kinds: type[GatewayError], signed_in: bool = True) -> Responses:
    """Describe the errors that a route can answer: those of `kinds`, and those of any route that asks for a token.

    With `signed_in` false, the route asks for none.
    """
    of_all = (Unauthenticated, IdentityProviderUnavailable, DatabaseUnavailable) if signed_in else ()
    by_status: dict[int | str, list[type[GatewayError]]] = {}
    for kind in dict.fromkeys((*kinds, *of_all)):
        by_status.setdefault(kind.http_status, []).append(kind)
    return {status: _described(int(status), kinds) for status, kinds in sorted(by_status.items())}


def _described(status: int, kinds: list[type[GatewayError]]) -> dict[str, Any]:
    content = {
        "schema": {"$ref": ERROR_SCHEMA},
        "examples": {kind.__name__: {"summary": _summary(kind), "value": _content(_example(kind))} for kind in kinds},
    }
    described: dict[str, Any] = {
        "description": " ".join(_summary(kind) for kind in kinds),
        "content": {"application/json": content},
    }
    return described | ({"headers": _HEADERS[status]} if status in _HEADERS else {})


def _summary(kind: type[GatewayError]) -> str:
    return (kind.__doc__ or "").split("\n", 1)[0].split(". ", 1)[0].removesuffix(".") + "."


def _example(kind: type[GatewayError]) -> GatewayError:
    for example in _EXAMPLES:
        if type(example) is kind:
            return example
    # Those that say the same whatever was asked take no words.
    return kind() if kind.__init__ is not GatewayError.__init__ else kind(_summary(kind))  # type: ignore[call-arg]


ERRORS: Responses = errors()
"""The errors of any route that asks for a token."""
