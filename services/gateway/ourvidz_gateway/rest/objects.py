"""Serves the objects of a local store under the signed URLs that the store hands out."""

from http import HTTPStatus
from typing import Final

from fastapi import APIRouter
from fastapi.responses import FileResponse, JSONResponse, Response

from ourvidz_serving.storage import (
    InvalidKey,
    LocalStore,
    ObjectNotFound,
    SignatureExpired,
    SignatureInvalid,
    StoreError,
    StoreUnavailable,
)

HEADERS: Final = {"Cache-Control": "private", "X-Content-Type-Options": "nosniff"}
STATUSES: Final[dict[type[StoreError], HTTPStatus]] = {
    SignatureInvalid: HTTPStatus.FORBIDDEN,
    SignatureExpired: HTTPStatus.FORBIDDEN,
    InvalidKey: HTTPStatus.NOT_FOUND,
    ObjectNotFound: HTTPStatus.NOT_FOUND,
    StoreUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
}


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
            status = STATUSES[type(error)]
            body = {
                "success": False,
                "error": f"{error}.",
                "details": status.phrase,
                "retryable": status == HTTPStatus.SERVICE_UNAVAILABLE,
            }
            return JSONResponse(body, status, HEADERS)
        return FileResponse(path, headers=HEADERS, media_type=info.content_type)

    path = "/objects/{bucket}/{key:path}"
    router.add_api_route(path, read, methods=["GET"], response_class=FileResponse)
    # A second route, since FastAPI names an operation after its function and wants the names to differ.
    router.add_api_route(path, read, methods=["HEAD"], include_in_schema=False)
    return router
