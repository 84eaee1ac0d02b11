"""Serves the objects of a local store under the signed URLs that the store hands out."""

from http import HTTPStatus
from typing import Final

import structlog
from fastapi import APIRouter
from fastapi.responses import FileResponse, JSONResponse, Response

from ourvidz_gateway.rest.errors import ERROR_SCHEMA, Responses
from ourvidz_serving.storage import (
    AccessDenied,
    InvalidKey,
    LocalStore,
    ObjectNotFound,
    SignatureExpired,
    SignatureInvalid,
    StoreError,
    StoreUnavailable,
)

log = structlog.get_logger()

HEADERS: Final = {"Cache-Control": "private", "X-Content-Type-Options": "nosniff"}
STATUSES: Final[dict[type[StoreError], HTTPStatus]] = {
    SignatureInvalid: HTTPStatus.FORBIDDEN,
    SignatureExpired: HTTPStatus.FORBIDDEN,
    InvalidKey: HTTPStatus.NOT_FOUND,
    ObjectNotFound: HTTPStatus.NOT_FOUND,
    # What went wrong with the disk is for the log.
    StoreUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    AccessDenied: HTTPStatus.SERVICE_UNAVAILABLE,
}

_FILE: Final = {"*/*": {"schema": {"type": "string", "format": "binary"}}}
_PLAIN: Final = {"text/plain": {"schema": {"type": "string"}}}
_ERROR: Final = {"application/json": {"schema": {"$ref": ERROR_SCHEMA}}}

ANSWERS: Final[Responses] = {
    200: {"description": "The whole object.", "content": _FILE},
    206: {"description": "The range of it that was asked for.", "content": _FILE},
    400: {"description": "The `Range` header can't be read.", "content": _PLAIN},
    403: {"description": "The token is missing, has expired, or is not for this object.", "content": _ERROR},
    404: {"description": "There is no such object.", "content": _ERROR},
    416: {"description": "The object does not have the range that was asked for.", "content": _PLAIN},
    503: {"description": "The folder that holds the objects can't be read just now.", "content": _ERROR},
}

RETRY_AFTER_S: Final = 5


def objects_router(store: LocalStore) -> APIRouter:
    """Return the routes GET and HEAD `/objects/<bucket>/<key>?token=…`. The token is all the authorization there is.

    Ranges are served: 206, or 416 for one that the object does not have. A token that is missing, changed, expired or
    another object's is a 403, an object that is not there a 404.
    """
    router = APIRouter(tags=["objects"])

    async def read(bucket: str, key: str, token: str = "") -> Response:
        """Return an object's bytes."""
        try:
            info, path = await store.open_signed(bucket, key, token)
        except tuple(STATUSES) as error:
            return _refusal(error)
        return FileResponse(path, headers=HEADERS, media_type=info.content_type)

    path = "/objects/{bucket}/{key:path}"
    router.add_api_route(path, read, methods=["GET"], response_class=FileResponse, responses=ANSWERS)
    # A second route, since FastAPI names an operation after its function and wants the names to differ.
    router.add_api_route(path, read, methods=["HEAD"], include_in_schema=False)
    return router


def _refusal(error: StoreError) -> JSONResponse:
    status = STATUSES[type(error)]
    away = status == HTTPStatus.SERVICE_UNAVAILABLE
    if away:
        log.error("an object can't be read", error=str(error))
    body = {
        "success": False,
        "error": "The object can't be read just now." if away else f"{error}.",
        "details": status.phrase,
        "retryable": away,
    }
    return JSONResponse(body, status, {**HEADERS, "Retry-After": str(RETRY_AFTER_S)} if away else HEADERS)
