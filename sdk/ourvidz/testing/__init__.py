"""A double of the service for your own tests: in this process, over real gRPC and HTTP on loopback, with no database.

    from ourvidz.testing import FakeOurVidz

    def test_a_failed_picture_is_told():
        with FakeOurVidz() as service:
            service.fail_next("The renderer ran out of memory.")
            making = service.client("ann").generate("sdxl_image_fast", "a lighthouse")
            try:
                making.result()
            except JobFailed as failure:
                assert "out of memory" in str(failure)
            assert service.requests("CreateJob")[0].prompt == "a lighthouse"

Jobs complete by themselves, at once, with files that can be downloaded: each a real PNG of its size in one colour, or
a real MP4. A test can let the next one fail (`fail_next`), be cancelled (`cancel_next`) or stop half-way (`hold_next`,
`release`), or refuse a call (`refuse_next`); it can set credits, and look at what was asked for. A program under test
that reads its environment finds the service with `environment()`.

What a program can do wrong is refused as the service refuses it, by the same exceptions: unknown job types, bad
quantities, seeds, prompts, references and metadata, missing credits, another request under a used request id, ids that
are another user's. Left out are: webhooks (their URLs are checked, and not called), the prompt policy, rate limits,
fetching references from other hosts, quarantine, and everything that takes its time.
"""

from __future__ import annotations

from ourvidz.testing.reception import Received
from ourvidz.testing.service import FakeOurVidz

__all__ = ["FakeOurVidz", "Received"]
