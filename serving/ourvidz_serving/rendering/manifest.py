"""The manifest beside a render's outputs: the proof that the render is complete, and what a replay reads."""

from __future__ import annotations

import hashlib

from google.protobuf import json_format

from ourvidz.api.render.v1 import render_pb2
from ourvidz_serving.rendering.errors import RenderExists
from ourvidz_serving.storage import ObjectNotFound, ObjectStore


def request_sha256(request: render_pb2.RenderRequest) -> bytes:
    """Return what tells the same request from another one: 32 bytes over its work and its output location alone."""
    same = render_pb2.RenderRequest(
        output=request.output,
        images=request.images if request.HasField("images") else None,
        clip=request.clip if request.HasField("clip") else None,
    )
    return hashlib.sha256(same.SerializeToString(deterministic=True)).digest()


def manifest_key(output: render_pb2.OutputLocation) -> str:
    """Return the key that the manifest has in the output's bucket."""
    return f"{output.prefix}/manifest.json"


def to_json(manifest: render_pb2.Manifest) -> bytes:
    """Return the manifest as it is stored."""
    return json_format.MessageToJson(manifest).encode()


async def read_manifest(store: ObjectStore, request: render_pb2.RenderRequest) -> render_pb2.Manifest | None:
    """Return the manifest of this very request, or None where its outputs would go and no manifest lies.

    Raises `RenderExists` when another request's manifest lies there, and `StoreError` when storage can't tell.
    """
    place = f"{request.output.bucket}/{request.output.prefix}"
    try:
        data = await store.get(request.output.bucket, manifest_key(request.output))
        manifest = json_format.Parse(data, render_pb2.Manifest(), ignore_unknown_fields=True)
    except ObjectNotFound:
        return None
    except (json_format.ParseError, UnicodeDecodeError):
        raise RenderExists(f"a manifest that can't be read lies in {place}") from None
    if manifest.render_id != request.render_id:
        raise RenderExists(f"the outputs of another render lie in {place}")
    if manifest.request_sha256 != request_sha256(request):
        raise RenderExists(f"another request was rendered under {request.render_id}")
    return manifest
