"""The rules by which any model is loaded: from where, as what, and how a failure is put.

Weights are read as safetensors only: other formats can run code when they are opened. Classes of diffusers and
transformers are named as attributes of their packages, which import them when they are first used: by then the engine
has told the libraries to be quiet, and their imports are where they talk most.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diffusers
import torch
from safetensors import SafetensorError

from ourvidz_serving.engines.engine import ModelUnavailable

MINIATURE = "miniature"

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def shown_name(model: str) -> str:
    """Return a model's name without the folders above it, which are the operator's own affair."""
    path = Path(model).expanduser()
    return path.name if path.exists() else model


@contextmanager
def load_errors(model: str) -> Iterator[None]:
    """Turn whatever the libraries raise while they load `model` into one line: `ModelUnavailable`."""
    try:
        yield
    except ModelUnavailable:
        raise
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise ModelUnavailable(f"the model {model} can't be loaded: it does not fit into memory") from error
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        first_line = str(error).strip().partition("\n")[0]
        raise ModelUnavailable(f"the model {model} can't be loaded: {first_line}") from error


def place_of(model: str, build_miniature: Callable[[], Path]) -> str:
    """Return what `from_pretrained` takes for a model: a folder, or a Hub name.

    `build_miniature` returns the miniature's folder. Raises `ModelUnavailable` for what can be neither.
    """
    if model == MINIATURE:
        return str(build_miniature())
    path = Path(model).expanduser()
    if path.is_dir():
        return str(path)
    if path.exists() or not _HUB_NAME.fullmatch(model):
        raise ModelUnavailable(f"there is no model at {model}")
    return model


def load_pipeline(
    class_name: str, place: str, *, network: str, dtype: torch.dtype | dict[str, torch.dtype], **options: Any
) -> Any:
    """Return the diffusers pipeline of class `class_name` that lies at `place`, on the CPU.

    `network` is the folder of the part that denoises (`unet`, `transformer`), by which a folder's files are told.
    `dtype` may name types by part, with a `default`. `options` go to `from_pretrained`; parts among them are shared instead of loaded. Raises `ModelUnavailable`, and
    what the libraries raise: use it within `load_errors`.
    """
    variant = _variant_of(Path(place), network) if Path(place).is_dir() else None
    pipeline_class = getattr(diffusers, class_name)
    found = pipeline_class.load_config(place).get("_class_name")
    # Before anything is loaded: parts that another pipeline lacks would count as left out, and only rendering would fail.
    if found != class_name:
        raise ModelUnavailable(f"{place} is a {found}, not a {class_name}")
    return pipeline_class.from_pretrained(place, dtype=dtype, variant=variant, use_safetensors=True, **options)


def _variant_of(folder: Path, network: str) -> str | None:
    """Return which of a folder's weights to read. Raises `ModelUnavailable` when there are none that we read."""
    if not (folder / "model_index.json").is_file():
        raise ModelUnavailable(f"the folder {folder} holds no pipeline: it has no model_index.json")
    weights = list(folder.glob(f"{network}/*.safetensors"))
    if not weights:
        raise ModelUnavailable(f"the folder {folder} has no safetensors weights; other formats are not read")
    # As downloaded with `--variant fp16`: the files have other names, and only those.
    return "fp16" if all(".fp16." in path.name for path in weights) else None
