"""Looking after files: what jobs made, and what they can follow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from ourvidz.assets import Asset
from ourvidz.cli.lists import iso, show_json, show_list, when
from ourvidz.client import Client
from ourvidz.errors import InvalidReferenceImage
from ourvidz.references import ReferenceImage

ASSET_COLUMNS = ("id", "type", "file", "size", "created", "job", "project")
REFERENCE_COLUMNS = ("id", "file", "size", "created", "name")


def list_assets(limit: int, *, job_type: str | None, project_id: str | None, as_json: bool) -> None:
    """Print the newest files that jobs made."""
    with Client.from_environment() as client:
        assets = client.list_assets(page_size=limit, job_type=job_type, project_id=project_id)
    if as_json:
        show_json([asset_json(asset) for asset in assets])
    else:
        show_list(ASSET_COLUMNS, [_asset_row(asset) for asset in assets])


def delete_assets(asset_ids: Sequence[str]) -> None:
    """Delete files that jobs made, one after the other; the first that is not there ends it."""
    with Client.from_environment() as client:
        for asset_id in asset_ids:
            client.delete_asset(asset_id)


def list_references(limit: int, *, as_json: bool) -> None:
    """Print the newest pictures that were uploaded."""
    with Client.from_environment() as client:
        images = client.list_reference_images(page_size=limit)
    if as_json:
        show_json([_reference_json(image) for image in images])
    else:
        show_list(REFERENCE_COLUMNS, [_reference_row(image) for image in images])


def upload_references(pictures: Sequence[Path]) -> None:
    """Upload pictures and print the URL of each."""
    with Client.from_environment() as client:
        for picture in pictures:
            typer.echo(upload(client, picture).url)


def upload(client: Client, picture: Path) -> ReferenceImage:
    """Upload a file. Raises `InvalidReferenceImage` for one that can't be read, too."""
    try:
        return client.upload_reference(picture)
    except OSError as error:
        raise InvalidReferenceImage(f"{picture} can't be read: {error.strerror}") from error


def delete_references(reference_ids: Sequence[str]) -> None:
    """Delete uploaded pictures, one after the other; the first that is not there ends it."""
    with Client.from_environment() as client:
        for reference_id in reference_ids:
            client.delete_reference_image(reference_id)


def asset_json(asset: Asset) -> dict[str, Any]:
    """Return the asset under the keys that `GET /api/assets` uses."""
    return {
        "id": asset.id,
        "job_id": asset.job_id,
        "job_type": asset.job_type,
        "url": asset.url,
        "mime_type": asset.mime_type,
        "size_bytes": asset.size_bytes,
        "width": asset.width_px,
        "height": asset.height_px,
        "seed": asset.seed,
        "duration_seconds": asset.duration_s,
        "project_id": asset.project_id,
        "created_at": iso(asset.created_at),
    }


def _reference_json(image: ReferenceImage) -> dict[str, Any]:
    return {
        "id": image.id,
        "url": image.url,
        "filename": image.filename,
        "mime_type": image.mime_type,
        "size_bytes": image.size_bytes,
        "width": image.width_px,
        "height": image.height_px,
        "created_at": iso(image.created_at),
    }


def _asset_row(asset: Asset) -> tuple[str, ...]:
    return (
        asset.id,
        asset.job_type,
        f"{asset.mime_type} {asset.width_px}×{asset.height_px}",
        _size(asset.size_bytes),
        when(asset.created_at) or "",
        asset.job_id,
        asset.project_id or "",
    )


def _reference_row(image: ReferenceImage) -> tuple[str, ...]:
    return (
        image.id,
        f"{image.mime_type} {image.width_px}×{image.height_px}",
        _size(image.size_bytes),
        when(image.created_at) or "",
        image.filename,
    )


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:.1f} MB" if size_bytes >= 2**20 else f"{size_bytes / 2**10:.1f} kB"
