"""Has a WAN renderer make a clip, without a gateway: `python examples/render_directly.py start.png`.

It talks to `OURVIDZ_STORAGE_KIND=local OURVIDZ_STORAGE_PATH=objects python -m ourvidz_wan`; the clip lands in `objects`.
"""

import os
import sys
import uuid
from pathlib import Path

import grpc

from ourvidz.api.render.v1 import render_pb2 as render
from ourvidz.api.render.v1.render_pb2_grpc import RenderServiceStub

sampling = render.Sampling(prompt="a lighthouse at dawn", step_count=25, guidance_scale=6.5, seed=2026)
clip = render.Clip(sampling=sampling, width_px=480, height_px=832, frame_count=83, duration={"seconds": 5})
if sys.argv[1:]:
    clip.start_frame.inline = Path(sys.argv[1]).read_bytes()
name = str(uuid.uuid4())
request = render.RenderRequest(
    render_id=f"{name}/1", output=render.OutputLocation(bucket="video-fast", prefix=f"direct/{name}/1"), clip=clip
)
with grpc.insecure_channel(os.environ.get("RENDERER", "127.0.0.1:50062")) as channel:
    for event in RenderServiceStub(channel).Render(request):
        print(event.WhichOneof("event"), event.step.step or "")
for output in event.finished.outputs:
    print(f"{output.bucket}/{output.key}", output.mime_type, output.size_bytes, f"seed {output.seed}")
