"""A page on which people read the description of the REST API and try it: Swagger UI, served from here.

FastAPI's own page loads Swagger UI from somebody else's server, which a closed network does not reach, and which would
run in the page that its users give their tokens to.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Final

from fastapi import APIRouter, HTTPException
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import FileResponse, HTMLResponse, Response

ASSETS: Final = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon-32x32.png": "image/png",
}
"""The files of Swagger UI that the page loads, as the package has them."""


def docs_router(title: str) -> APIRouter:
    """Return the routes of `/docs` and of what it loads. Addresses are relative, so that any prefix may come before."""
    router = APIRouter(include_in_schema=False)
    folder = Path(str(files("fastapi_swagger.resources")))
    script, style, icon = (f"docs/{name}" for name in ASSETS)
    page = get_swagger_ui_html(
        openapi_url="openapi.json",
        title=title,
        swagger_js_url=script,
        swagger_css_url=style,
        swagger_favicon_url=icon,
        # Without a validator, which would be somebody else's server.
        swagger_ui_parameters={"validatorUrl": None, "displayRequestDuration": True},
    )

    async def show() -> HTMLResponse:
        return page

    async def load(name: str) -> Response:
        if name not in ASSETS:
            raise HTTPException(404)
        return FileResponse(folder / name, media_type=ASSETS[name], headers={"Cache-Control": "max-age=3600"})

    router.add_api_route("/docs", show, methods=["GET"])
    router.add_api_route("/docs/{name}", load, methods=["GET"])
    return router
