"""A real browser, Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator

import pytest
from playwright.async_api import Page as AsyncPage
from playwright.async_api import async_playwright
from playwright.sync_api import Page, sync_playwright

# As root there is no sandbox; the rest keeps the browser from calling its maker.
OPTIONS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]


@pytest.fixture
def page() -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_chromium(), args=OPTIONS)
        yield browser.new_page()
        browser.close()


@pytest.fixture
async def async_page() -> AsyncIterator[AsyncPage]:
    """The same, for tests that run a server of their own on the event loop."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=_chromium(), args=OPTIONS)
        yield await browser.new_page()
        await browser.close()


def _chromium() -> str:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("there is no Chromium here: apt-get install chromium")
    return chromium


PLAY = """
video => new Promise((resolve, reject) => {
  video.onerror = () => reject(video.error.message);
  const tell = () => resolve([video.duration, video.videoWidth, video.videoHeight]);
  if (video.readyState >= 2) tell(); else video.onloadeddata = tell;
})
"""
"""Waits until a `<video>` shows its first frame; gives its duration, width and height."""
