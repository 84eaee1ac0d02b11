"""A gateway between an enhancer and a renderer, both on real channels."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

import pytest

from ourvidz_gateway.gateway import Gateway
from support.enhanced_jobs import Open
from support.renderer import Renderer, serving
from support.scripted_enhancer import ScriptedEnhancer, enhancing


@pytest.fixture
async def wan(tmp_path) -> AsyncIterator[Renderer]:
    """A WAN renderer with an engine that only paints."""
    (tmp_path / "wan").mkdir()
    async with serving(tmp_path / "wan", kind="wan") as renderer:
        await renderer.ready()
        yield renderer


@pytest.fixture
async def enhancer() -> AsyncIterator[ScriptedEnhancer]:
    async with enhancing() as enhancer:
        yield enhancer


@pytest.fixture
def open_both(wan: Renderer, enhancer: ScriptedEnhancer, open_one: Open) -> Open:
    """Open a gateway that reaches both; settings can be changed."""

    def opened(**values: object) -> AbstractAsyncContextManager[Gateway]:
        stated = {"renderers_wan": f"127.0.0.1:{wan.server.port}", "renderers_enhancer": enhancer.address, **values}
        return open_one(**stated)

    return opened


@pytest.fixture
async def gateway(database, open_both: Open) -> AsyncIterator[Gateway]:
    async with open_both() as gateway:
        yield gateway
