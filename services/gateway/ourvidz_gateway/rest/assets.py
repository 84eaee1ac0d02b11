"""What users' jobs have made: looked through, opened, deleted."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import RedirectResponse

from ourvidz_gateway.assets import AssetFilter
from ourvidz_gateway.errors import AssetNotFound, InvalidRequest, UnknownJobType
from ourvidz_gateway.pages import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE
from ourvidz_gateway.rest.context import Caller, CurrentFront
from ourvidz_gateway.rest.errors import ERRORS, errors
from ourvidz_gateway.rest.file_models import AssetList

router = APIRouter(prefix="/api/assets", tags=["assets"], responses=ERRORS)


@router.get("", response_model_exclude_none=True, responses=errors(InvalidRequest, UnknownJobType))
async def list_assets(
    front: CurrentFront,
    caller: Caller,
    page_size: Annotated[int, Query(ge=1, le=MAX_PAGE_SIZE)] = DEFAULT_PAGE_SIZE,
    page_token: Annotated[str | None, Query(description="The last page's `next_cursor`.")] = None,
    job_type: str | None = None,
    project_id: str | None = None,
) -> AssetList:
    """List what the caller's jobs have made, newest first."""
    assets, next_cursor = await front.list_assets(
        caller.user_id,
        AssetFilter(job_type=job_type or None, project_id=project_id or None),
        page_size=page_size,
        page_token=page_token or None,
    )
    return AssetList.of(assets, next_cursor)


@router.get(
    "/{asset_id}/content",
    status_code=307,
    response_class=RedirectResponse,
    responses={
        307: {"description": "A signed URL of the file, made for this reply, is in `Location`."},
        **errors(AssetNotFound),
    },
)
async def open_asset(asset_id: str, front: CurrentFront, caller: Caller) -> RedirectResponse:
    """Redirect to an asset's file. This address stays the same for as long as the asset is there."""
    url = await front.open_asset(caller.user_id, asset_id)
    # The URL expires, so that nobody may keep the redirect.
    return RedirectResponse(url, 307, headers={"Cache-Control": "no-store"})


@router.delete("/{asset_id}", status_code=204, responses=errors(AssetNotFound))
async def delete_asset(asset_id: str, front: CurrentFront, caller: Caller) -> None:
    """Delete an asset and its file; its job stays."""
    await front.delete_asset(caller.user_id, asset_id)
