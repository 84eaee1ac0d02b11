from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.renderer import Renderer, serving


@pytest.fixture
async def renderer(tmp_path: Path) -> AsyncIterator[Renderer]:
    """A renderer whose model is loaded."""
    async with serving(tmp_path) as renderer:
        await renderer.ready()
        yield renderer
