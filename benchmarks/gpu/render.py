"""Each job type's recipe through our engines, beside plain diffusers and transformers calls, in one run.

    python benchmarks/gpu/render.py          # the real networks' shapes with random weights; wants a GPU of 48 GB
    python benchmarks/gpu/render.py --cut    # the same code with narrow networks and two steps, on any CPU

First it checks that both make the same pictures, and ends with status 1 where they don't. Then both run in turn, round
by round, and a table is printed: medians over the rounds, and their ratio. "Ours" is what a renderer does but for the
upload: an engine process, the frames' way out of it, and encoding. "Plain" is the stock pipeline call, saved by Pillow
or by diffusers' `export_to_video`.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
import transformers
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from networks import Scale, build_qwen, build_sdxl, build_wan, build_wan_vace
from ours import Rendered, engine_process, render
from ourvidz_gateway.jobs import Kind
from ourvidz_models.devices import choose_device, choose_dtype
from ourvidz_sdxl.settings import SdxlSettings
from ourvidz_wan.settings import WanSettings
from plain import Plain, plain_sdxl, plain_wan
from prompts import FACTORY as ENHANCER_FACTORY
from prompts import PlainEnhancer, enhance, enhancer_config
from recipes import Recipe, make_recipes

PARTS = ("enhancer", "sdxl", "wan")
TOLERANCE = 2
"""How far a value of ours may be from the stock pipeline's, of 255: rounding alone."""
REFERENCE_S = {
    "sdxl_image_fast": "3–8",
    "sdxl_image_high": "5–15",
    "image_fast": "25",
    "image_high": "40",
    "video_fast": "135",
    "video_high": "180",
}
"""Seconds that the worker API's reference states, on an RTX 6000 Ada, peak memory under 35 GB."""
STAGES = ("text_encode", "denoise", "decode", "encode")


def main() -> int:
    """Return 1 if a picture of ours differs from the stock pipeline's."""
    arguments = _arguments()
    console = Console(width=None if sys.stdout.isatty() else 160)
    device = choose_device("auto")
    dtype = choose_dtype("auto", device)
    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
    scale = Scale.CUT if arguments.cut else Scale.FULL
    console.print(
        f"{_name_of(device)}, {dtype}, networks: {scale}, torch {torch.__version__}, {arguments.rounds} rounds"
    )
    tables = []
    same = True
    recipes = make_recipes(cut=arguments.cut)
    if "enhancer" in arguments.only:
        with console.status("building the language model"):
            qwen = build_qwen(arguments.cache, scale, device, dtype)
        with console.status("enhancing"):
            tables.append(asyncio.run(_compare_enhancers(qwen, device, dtype, arguments.rounds)))
    table = _make_table()
    for kind in (Kind(name) for name in arguments.only if name != "enhancer"):
        own = [recipe for recipe in recipes if recipe.kind is kind]
        with console.status(f"building the {kind} networks"):
            factory, config, plain = _build(kind, arguments.cache, scale, device, dtype)
        same &= asyncio.run(_compare(factory, config, plain, own, arguments.rounds, table, console))
    for each in [*tables, *([table] if table.row_count else [])]:
        console.print(each)
    return 0 if same else 1


def _build(
    kind: Kind, cache: Path, scale: Scale, device: torch.device, dtype: torch.dtype
) -> tuple[str, dict[str, Any], Plain]:
    """Return our engine's factory and configuration, and the stock calls, for one kind of renderer."""
    if kind is Kind.SDXL:
        sdxl = build_sdxl(cache, scale, device, dtype)
        settings = SdxlSettings(model=str(sdxl))
        return "ourvidz_sdxl.engine:SdxlEngine", settings.engine_config(), plain_sdxl(sdxl, device, dtype)
    wan, vace = build_wan(cache, scale, device, dtype), build_wan_vace(cache, scale, device, dtype)
    wan_settings = WanSettings(model=str(wan), vace_model=str(vace))
    return "ourvidz_wan.engine:WanEngine", wan_settings.engine_config(), plain_wan(wan, vace, device, dtype)


async def _compare(
    factory: str,
    config: dict[str, Any],
    plain: Plain,
    recipes: Sequence[Recipe],
    rounds: int,
    table: Table,
    console: Console,
) -> bool:
    """Render each recipe both ways and add a line for it; return whether all made the same pictures."""
    same = True
    with Progress(console=console) as progress:
        task = progress.add_task("loading", total=len(recipes) * (rounds + 1))
        async with engine_process(factory, config) as engine:
            for recipe in recipes:
                progress.update(task, description=recipe.name)
                # The first run of each is for the check alone: it warms both up.
                first, (stock, _) = await render(engine, recipe), await asyncio.to_thread(plain, recipe)
                progress.advance(task)
                difference = _difference(first, stock)
                same &= difference <= TOLERANCE
                ours, theirs = [], []
                for _ in range(rounds):
                    ours.append(await render(engine, recipe))
                    theirs.append((await asyncio.to_thread(plain, recipe))[1])
                    progress.advance(task)
                table.add_row(*_row(recipe, ours, statistics.median(theirs), difference))
    return same


async def _compare_enhancers(folder: Path, device: torch.device, dtype: torch.dtype, rounds: int) -> Table:
    """Rewrite a prompt both ways; with random weights and half precision the texts may part, and the table says where."""
    plain = PlainEnhancer(folder, device, dtype)
    ours, theirs = [], []
    async with engine_process(ENHANCER_FACTORY, enhancer_config(folder)) as engine:
        first = await enhance(engine)
        token_count = await asyncio.to_thread(plain.count_tokens, first.text)
        for _ in range(rounds):
            ours.append(await enhance(engine))
            theirs.append(await asyncio.to_thread(plain.enhance, token_count))
    table = Table("one prompt", title=f"Enhancer, greedy, {token_count} tokens; medians, seconds")
    for heading in ("ours", "plain", "plain/ours", "first piece", "prefill", "generate", "same characters"):
        table.add_column(heading, justify="right")
    ours_s, plain_s = (statistics.median(each.seconds for each in both) for both in (ours, theirs))
    pairs = zip(ours[-1].text, theirs[-1].text, strict=False)
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    table.add_row(
        "enhance",
        f"{ours_s:.2f}",
        f"{plain_s:.2f}",
        f"{plain_s / ours_s:.2f}",
        f"{statistics.median(each.first_s for each in ours):.3f}",
        *(f"{statistics.median(each.stages[stage] for each in ours):.3f}" for stage in ("prefill", "generate")),
        f"{same} of {len(ours[-1].text)}",
    )
    return table


def _difference(ours: Rendered, stock: Sequence[Any]) -> int:
    """Return the largest difference between values of the two, of 255; 256 where there are not as many frames."""
    if len(ours.frames) != len(stock):
        return 256
    return max(int(np.abs(one.astype(np.int16) - other).max()) for one, other in zip(ours.frames, stock, strict=True))


def _make_table() -> Table:
    table = Table("recipe", title="One output, medians; seconds")
    for heading in ("ours", "plain", "plain/ours", "step", *STAGES, "peak GB", "reference", "difference"):
        table.add_column(heading, justify="right")
    return table


def _row(recipe: Recipe, ours: Sequence[Rendered], plain_s: float, difference: int) -> list[str]:
    ours_s = statistics.median(rendered.seconds for rendered in ours)
    return [
        recipe.name,
        f"{ours_s:.2f}",
        f"{plain_s:.2f}",
        f"{plain_s / ours_s:.2f}",
        f"{statistics.median(rendered.step_s for rendered in ours):.3f}",
        *(f"{statistics.median(rendered.stages.get(stage, 0.0) for rendered in ours):.2f}" for stage in STAGES),
        f"{max(rendered.peak_bytes for rendered in ours) / 1e9:.1f}",
        REFERENCE_S[recipe.job_type],
        f"{difference} of 255",
    ]


def _name_of(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cut", action="store_true", help="narrow networks and two steps: a trial run on a CPU")
    parser.add_argument("--rounds", type=int, default=3, help="how often each recipe is measured")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--cache", type=Path, default=Path("benchmarks/.cache"), help="where the networks are kept")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
