from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTokenizer

from ourvidz_miniature.sdxl import build_miniature_sdxl, ensure_miniature_sdxl
from ourvidz_miniature.vocabulary import byte_letters, make_vocabulary
from support.miniature import difference
from support.reference_pictures import scene

TEXTS = ["", "a red fox", "Größe", "狐狸在雪地里", "🦊\u200d🔥", "zebra-crossing №7", "a\tb\nc", "\x00\x7f"]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_folder_holds_every_part_with_its_weights_as_safetensors_only(miniature: Path) -> None:
    index = json.loads((miniature / "model_index.json").read_text())
    assert index["_class_name"] == "StableDiffusionXLPipeline"
    parts = {name for name, value in index.items() if isinstance(value, list) and value[0]}
    assert parts == {path.name for path in miniature.iterdir() if path.is_dir()}
    weights = [path for path in miniature.rglob("*") if path.suffix not in {"", ".json", ".txt"}]
    assert {path.suffix for path in weights} == {".safetensors"}
    assert {path.parent.name for path in weights} == {"text_encoder", "text_encoder_2", "unet", "vae"}


def test_it_is_small_and_every_user_of_the_machine_may_read_it(miniature: Path) -> None:
    files = [path for path in miniature.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 40 * 1024**2
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in files)
    assert miniature.stat().st_mode & 0o555 == 0o555


def test_two_builds_have_the_same_bytes_whatever_was_drawn_before(miniature: Path, tmp_path: Path) -> None:
    torch.rand(3)
    before = torch.get_rng_state()
    build_miniature_sdxl(tmp_path)
    assert contents(tmp_path) == contents(miniature)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_folder_that_is_there_is_taken_as_it_is(miniature: Path) -> None:
    changed = (miniature / "unet" / "config.json").stat().st_mtime_ns
    assert ensure_miniature_sdxl(miniature.parent) == miniature
    assert (miniature / "unet" / "config.json").stat().st_mtime_ns == changed


def test_several_processes_may_build_it_at_once(miniature: Path, tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from ourvidz_miniature.sdxl import ensure_miniature_sdxl
input()
print(ensure_miniature_sdxl(Path(sys.argv[1])))
"""
    cache = tmp_path / "cache"
    builders = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(cache)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    for builder in builders:
        builder.stdin.write("\n")
        builder.stdin.flush()
    said = [builder.communicate()[0].strip() for builder in builders]
    assert [builder.returncode for builder in builders] == [0, 0]
    assert said == [str(cache / miniature.name)] * 2
    assert [path.name for path in cache.iterdir()] == [miniature.name]
    assert contents(cache / miniature.name) == contents(miniature)


def test_a_cache_that_cannot_be_written_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(FileExistsError):
        ensure_miniature_sdxl(tmp_path / "cache")
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


@pytest.mark.parametrize("name", ["tokenizer", "tokenizer_2"])
@pytest.mark.parametrize("text", TEXTS)
def test_every_text_has_tokens_and_none_is_unknown(miniature: Path, name: str, text: str) -> None:
    tokenizer = CLIPTokenizer.from_pretrained(miniature / name)
    tokens = tokenizer(text, add_special_tokens=False).input_ids
    assert bool(tokens) == bool(text.strip())
    assert tokenizer.unk_token_id not in tokens
    assert tokenizer.decode(tokens).replace(" ", "") == "".join(text.lower().split())


def test_common_words_are_one_token_and_the_padding_is_sdxls(miniature: Path) -> None:
    first, second = (CLIPTokenizer.from_pretrained(miniature / name) for name in ("tokenizer", "tokenizer_2"))
    assert len(first("a red fox at sunset", add_special_tokens=False).input_ids) == 5
    assert first.model_max_length == second.model_max_length == 77
    padded = [tokenizer("fox", padding="max_length").input_ids for tokenizer in (first, second)]
    assert [len(tokens) for tokens in padded] == [77, 77]
    assert padded[0][-1] == first.eos_token_id
    assert padded[1][-1] == second.convert_tokens_to_ids("!")


def test_the_vocabulary_numbers_each_token_once_and_ends_with_the_special_ones() -> None:
    vocabulary = make_vocabulary()
    assert sorted(vocabulary.ids.values()) == list(range(len(vocabulary.ids)))
    assert list(vocabulary.ids)[-2:] == ["<|startoftext|>", "<|endoftext|>"]
    assert len(set(byte_letters())) == 256
    assert all(left + right in vocabulary.ids for left, right in vocabulary.merges)


def test_the_networks_have_the_structure_of_sdxl(miniature: Path) -> None:
    unet, vae = (json.loads((miniature / part / "config.json").read_text()) for part in ("unet", "vae"))
    assert unet["down_block_types"] == ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"]
    assert unet["addition_embed_type"] == "text_time"
    assert vae["force_upcast"]
    assert np.isclose(vae["scaling_factor"], 0.13025)


def test_the_unet_has_the_attention_blocks_that_instantstyle_names(miniature: Path) -> None:
    unet = UNet2DConditionModel.from_pretrained(miniature / "unet")
    down, up = unet.down_blocks, unet.up_blocks
    # SDXL's own: two attention blocks in each of the last two on the way down, three in the first two on the way up.
    assert [len(getattr(block, "attentions", ())) for block in down] == [0, 2, 2]
    assert [len(getattr(block, "attentions", ())) for block in up] == [3, 3, 0]


@torch.no_grad()
def test_the_autoencoder_keeps_colours_and_layout(miniature: Path) -> None:
    vae = AutoencoderKL.from_pretrained(miniature / "vae")
    reference = scene(512)
    picture = torch.from_numpy(reference / np.float32(127.5) - 1).permute(2, 0, 1)[None]
    latents = vae.encode(picture).latent_dist.mode()
    assert latents.shape == (1, 4, 16, 16)
    decoded = vae.decode(latents).sample
    made = ((decoded[0].clamp(-1, 1) + 1) * 127.5).permute(1, 2, 0).numpy()
    # Its detail is 32 pixels large: what is soft stays, what is sharp is softened.
    assert difference(made, reference) < 25
    for row, column in [(60, 300), (200, 230), (480, 200), (480, 500)]:
        assert np.abs(made[row, column] - reference[row, column]).max() < 40
    assert 0.5 < float((latents * vae.config.scaling_factor).std()) < 2


@torch.no_grad()
def test_the_unet_takes_noise_away_and_leaves_what_is_soft(miniature: Path) -> None:
    unet = UNet2DConditionModel.from_pretrained(miniature / "unet")
    noise = torch.randn(1, 4, 32, 32, generator=torch.Generator().manual_seed(1))
    soft = torch.linspace(-1, 1, 32).expand(1, 4, 32, 32)
    text, pooled = torch.zeros(1, 77, 128), torch.zeros(1, 80)
    conditions = {"text_embeds": pooled, "time_ids": torch.tensor([[1024.0, 1024, 0, 0, 1024, 1024]])}
    guessed = unet(soft + noise, 500, text, added_cond_kwargs=conditions).sample
    without, before = soft + noise - guessed, (noise**2).mean()
    assert ((without - soft) ** 2).mean() < before / 2


@torch.no_grad()
def test_rounding_does_not_show(miniature: Path) -> None:
    """Machines round differently: a network that leaps on the smallest change would draw another picture on each."""
    unet = UNet2DConditionModel.from_pretrained(miniature / "unet")
    random = torch.Generator().manual_seed(1)
    latents, text = torch.randn(1, 4, 32, 32, generator=random), 50 * torch.randn(1, 77, 128, generator=random)
    conditions = {"text_embeds": torch.ones(1, 80), "time_ids": torch.ones(1, 6)}
    one, other = (
        unet(latents * factor, 500, text, added_cond_kwargs=conditions).sample for factor in (1.0, 1.0 + 1e-6)
    )
    assert (one - other).abs().max() < 1e-3
