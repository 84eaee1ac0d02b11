"""How long the stages of a task take."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from ourvidz_serving.engines.engine import Session


@contextmanager
def timed(session: Session, stage: str) -> Iterator[None]:
    """Tell how long the block took, as part of a stage; a block that raises tells nothing."""
    begun = time.perf_counter()
    yield
    session.timing(stage, time.perf_counter() - begun)
