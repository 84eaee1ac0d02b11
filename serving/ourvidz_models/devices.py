"""Where an engine computes, in which type, and how much memory it takes there."""

from __future__ import annotations

import resource
import sys
from typing import Any

import diffusers
import torch
import transformers

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def choose_device(name: str) -> torch.device:
    """Return the device of a setting; `auto` is cuda if there is one, else cpu."""
    return torch.device(name if name != "auto" else "cuda" if torch.cuda.is_available() else "cpu")


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """Return the type of a setting; `auto` is bfloat16 on cuda and float32 elsewhere."""
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return _DTYPES[name]


def prepare(config: dict[str, Any]) -> None:
    """Set up this process as `ModelSettings.engine_config()` says, before anything is loaded.

    What the libraries would print is either in our own progress and warnings or of no use to an operator. They import
    most of themselves when it is first used, that is, after this.
    """
    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    if config["threads"]:
        torch.set_num_threads(config["threads"])


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that it was told.

    A GPU runs behind the program. Waiting for it makes a step that is told one that is done, and lets a cancel stop
    the work itself.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def reset_peak_memory(device: torch.device) -> None:
    """Measure the peak from here on; the process's own peak, which counts without a GPU, can't be reset."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int:
    """Return the most memory that was in use at once, in bytes: the GPU's, or this process's where there is none."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # Linux counts in kibibytes, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
