"""A cache of folders that are built once, whoever asks first."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path


def build_once(cache_dir: Path, name: str, build: Callable[[Path], None]) -> Path:
    """Return the folder `name` of the cache; if it is not there, let `build` fill an empty one and give it that name.

    Several processes may do it at once: each builds in a folder of its own, and the first one to finish gives it its
    name. A folder of that name is always complete, and every user of the machine may read it. What `build` raises
    passes, and leaves nothing behind.
    """
    folder = cache_dir / name
    if folder.is_dir():
        return folder
    cache_dir.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(dir=cache_dir, prefix=f".{name}-"))
    try:
        build(building)
        _let_all_read(building)
        building.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
        # Another process was faster, and a folder is only ever renamed when it is complete.
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return folder


def _let_all_read(folder: Path) -> None:
    """Undo that temporary folders, and weights as safetensors writes them, are for their owner alone."""
    folder.chmod(0o755)
    for path in folder.rglob("*.safetensors"):
        path.chmod(0o644)
