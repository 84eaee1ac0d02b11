"""What an engine does when GPU memory runs out: one rung of a ladder after the other, then give up."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from typing import TypeAlias, TypeVar

import torch

from ourvidz_serving.engines.engine import EngineOutOfMemory

Result = TypeVar("Result")
Rung: TypeAlias = tuple[str, Callable[[], None]]
"""The name that results show, and what frees some memory."""


class MemoryLadder:
    """The rungs of one loaded model, the cheapest first.

    A rung that was needed stays in use: the next task would need it too.
    """

    def __init__(self, rungs: Sequence[Rung], device: torch.device) -> None:
        self._rungs = list(rungs)
        self._device = device
        self.rung = ""
        """The rung in use; empty for none."""

    def run(self, work: Callable[[], Result]) -> Result:
        """Do `work`, again from its start after each rung that it takes. Raises `EngineOutOfMemory` past the last."""
        while True:
            try:
                return work()
            except torch.OutOfMemoryError as error:
                if not self._rungs:
                    raise EngineOutOfMemory("GPU memory ran out, and everything that saves some was tried") from error
            # Outside the handler, where the error no longer holds on to what the failed work had allocated.
            gc.collect()
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
            self.rung, take = self._rungs.pop(0)
            take()
