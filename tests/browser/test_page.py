"""A page on another origin that asks for a picture, follows it with EventSource, and shows it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from playwright.async_api import Page

from contract.world import BUCKETS, HEIGHT_PX, WIDTH_PX, open_world
from ourvidz_gateway.jobs import JobFilter
from support import fronts
from support.fake_engine import paint
from support.file_server import file_server
from support.renderer import Renderer, serving

SEED = 7

PAGE = """
<!doctype html>
<img id=preview>
<script>
const api = new URLSearchParams(location.search).get("api");
const headers = {
  Authorization: `Bearer ${new URLSearchParams(location.search).get("token")}`,
  "Content-Type": "application/json",
};
const seen = [], previews = [];

async function call(path, options = {}) {
  const reply = await fetch(api + path, {headers, ...options});
  return reply.json();
}

async function ask(prompt, seed) {
  const body = JSON.stringify({jobType: "sdxl_image_fast", metadata: {prompt, seed}});
  const {job} = await call("/api/queue-job", {method: "POST", body, headers: {...headers, "Idempotency-Key": "k"}});
  return job.id;
}

async function ticket(job) {
  return (await call(`/api/jobs/${job}/ticket`, {method: "POST"})).url;
}

function follow(url) {
  return new Promise((resolve, reject) => {
    const source = new EventSource(`${api}${url}&preview=1`);
    const note = event => {
      const said = JSON.parse(event.data);
      seen.push(Number(event.lastEventId));
      if (["completed", "failed", "cancelled"].includes(said.status)) { source.close(); resolve(said.status); }
    };
    source.addEventListener("state", note);
    source.addEventListener("step", note);
    source.addEventListener("preview", event => {
      const {jpeg, ...rest} = JSON.parse(event.data);
      const image = document.querySelector("#preview");
      image.onload = () => previews.push({...rest, width: image.naturalWidth, height: image.naturalHeight});
      image.src = jpeg;
    });
    source.onerror = () => { if (source.readyState === EventSource.CLOSED) reject("the stream was refused"); };
  });
}

async function pixels(job) {
  const [url] = (await call(`/api/jobs/${job}`)).assets;
  const bytes = (await (await fetch(url)).arrayBuffer()).byteLength;
  const image = new Image();
  image.crossOrigin = "anonymous";
  image.src = url;
  await image.decode();
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  return {bytes, data: Array.from(context.getImageData(0, 0, canvas.width, canvas.height).data)};
}
</script>
"""

README = Path(__file__).parents[2] / "README.md"

# What fetch() says of a reply that a page may not read.
REFUSED = "TypeError: Failed to fetch"


@pytest.fixture
async def renderer(tmp_path: Path) -> AsyncIterator[Renderer]:
    async with serving(tmp_path, buckets=BUCKETS) as renderer:
        await renderer.ready()
        yield renderer


async def test_it_follows_its_job_with_a_ticket_and_shows_the_picture_and_no_other_origin_may(
    async_page: Page, dsn: str, renderer: Renderer
) -> None:
    page = async_page
    with file_server() as ours, file_server() as strangers:
        async with open_world(dsn, renderer, cors_origins=ours.url) as world:
            query = f"?api={world.url}&token={fronts.token('alice')}"
            for server in (ours, strangers):
                server.files[f"/{query}"] = PAGE.encode()

            await page.goto(f"{ours.url}/{query}")
            job_id = await page.evaluate(f"ask('hold:0:2', {SEED})")
            url = await page.evaluate(f"ticket('{job_id}')")
            await renderer.gate.held()
            await page.evaluate(f"window.ending = follow('{url}'); 0")
            await page.wait_for_function("previews.length > 0")
            renderer.gate.release()
            assert await page.evaluate("ending") == "completed"

            seen, previews = await page.evaluate("[seen, previews]")
            assert seen == list(range(1, len(seen) + 1))
            assert previews[0] == {
                "job_id": job_id,
                "attempt": 1,
                "image_index": 0,
                "step": 1,
                "width": 128,
                "height": 256,
            }
            shown = await page.evaluate(f"pixels('{job_id}')")
            picture = np.array(shown["data"], np.uint8).reshape(HEIGHT_PX, WIDTH_PX, 4)
            np.testing.assert_array_equal(picture[:, :, :3], paint(SEED, WIDTH_PX, HEIGHT_PX))
            assert shown["bytes"] > 0

            await page.goto(f"{strangers.url}/{query}")
            assert await page.evaluate("ask('a fox', 1).catch(String)") == REFUSED
            assert await page.evaluate("call('/api/jobs').catch(String)") == REFUSED
            assert await page.evaluate(f"follow('{url}').catch(String)") == "the stream was refused"
            jobs, _ = await world.gateway.page("alice", JobFilter(), page_size=10, page_token=None)
            assert [str(job.id) for job in jobs] == [job_id]


async def test_the_readmes_script_shows_progress_and_a_picture_and_says_what_went_wrong(
    async_page: Page, dsn: str, renderer: Renderer
) -> None:
    page = async_page
    (script,) = re.findall(r"```js\n(.*?)```", README.read_text(), re.DOTALL)
    with file_server() as ours:
        async with open_world(dsn, renderer, cors_origins=ours.url) as world:
            script = script.replace("http://127.0.0.1:8000", world.url)
            token = fronts.token("alice")
            page_text = f"<!doctype html><script>const token = '{token}', seen = [], shown = [];{script}</script>"
            ours.files["/page"] = page_text.encode()
            await page.goto(f"{ours.url}/page")

            render = "render('{}', '{}', percent => seen.push(percent), jpeg => shown.push(jpeg)).catch(String)"
            await page.evaluate(f"window.making = {render.format('sdxl_image_fast', 'hold:0:2')}; 0")
            await renderer.gate.held()
            await page.wait_for_function("shown.length > 0")
            renderer.gate.release()
            (picture,) = await page.evaluate("making")
            assert picture.startswith(f"{world.url}/objects/")
            seen, shown = await page.evaluate("[seen, shown]")
            assert seen == sorted(seen)
            assert seen
            assert shown[0].startswith("data:image/jpeg;base64,")

            refused = await page.evaluate(render.format("sdxl_image_slow", "a fox"))
            assert refused.startswith("Error: There is no such job type. Valid job types: sdxl_image_fast")
