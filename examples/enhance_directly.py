"""Has the enhancer rewrite a prompt, without a gateway: `python examples/enhance_directly.py 'woman walking'`.

It talks to `python -m ourvidz_enhancer` and prints the new prompt while it is being written.
"""

import os
import sys

import grpc

from ourvidz.api.enhance.v1 import enhance_pb2 as enhance
from ourvidz.api.enhance.v1.enhance_pb2_grpc import EnhanceServiceStub

request = enhance.EnhanceRequest(
    prompt=" ".join(sys.argv[1:]) or "woman walking", medium=enhance.MEDIUM_VIDEO, language=enhance.LANGUAGE_ENGLISH
)
with grpc.insecure_channel(os.environ.get("ENHANCER", "127.0.0.1:50063")) as channel:
    for event in EnhanceServiceStub(channel).Enhance(request):
        print(event.piece.text, end="", flush=True)
print(f"\n{event.finished.token_count} tokens by {event.finished.model}")
