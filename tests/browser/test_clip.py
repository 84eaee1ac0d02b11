"""A clip of ours in a browser."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from playwright.sync_api import Page

from ourvidz_wan.mp4 import Mp4Encoder
from support.browser import PLAY
from support.file_server import file_server

COLOUR = """
video => {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
  const context = canvas.getContext("2d");
  context.drawImage(video, 0, 0);
  return Array.from(context.getImageData(240, 416, 1, 1).data.slice(0, 3));
}
"""
RED = (200, 30, 40)


def test_it_plays_for_five_seconds_in_the_colours_that_were_rendered(page: Page):
    encoder = Mp4Encoder(480, 832, Fraction(83, 5), title="a clip", comment="")
    for _ in range(83):
        encoder.add(np.full((832, 480, 3), RED, np.uint8))
    with file_server() as server:
        server.files["/clip.mp4"] = encoder.finish()
        server.files["/index.html"] = b"<!doctype html><video src=clip.mp4 preload=auto muted></video>"
        page.goto(f"{server.url}/index.html")
        video = page.locator("video")
        assert video.evaluate(PLAY) == [5.0, 480, 832]
        shown = video.evaluate(COLOUR)
    assert np.abs(np.subtract(shown, RED)).max() <= 4
