from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from ourvidz_sdxl import latents
from ourvidz_sdxl.engine import SdxlEngine

PICTURE = torch.linspace(-0.9, 0.9, 3 * 64 * 64).view(1, 3, 64, 64)


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def test_a_picture_comes_back_softened(engine: SdxlEngine) -> None:
    vae = engine._pipeline.vae
    encoded = latents.encode(vae, PICTURE)
    assert encoded.shape == (1, 4, 2, 2)
    assert (latents.decode(vae, encoded) - PICTURE).abs().mean() < 0.3
    assert torch.equal(encoded, latents.encode(vae, PICTURE))


def test_the_statistics_that_a_model_states_are_kept(engine: SdxlEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    vae = engine._pipeline.vae
    plain = latents.encode(vae, PICTURE)
    expected = latents.decode(vae, plain)
    mean, std = [1.0, -2.0, 0.5, 0.0], [2.0, 4.0, 0.5, 1.0]
    config = {**vae.config, "latents_mean": mean, "latents_std": std}
    monkeypatch.setattr(vae, "_internal_dict", type(vae._internal_dict)(config))
    shifted = latents.encode(vae, PICTURE)
    scale = vae.config.scaling_factor
    by_hand = (plain / scale - torch.tensor(mean).view(1, 4, 1, 1)) * scale / torch.tensor(std).view(1, 4, 1, 1)
    torch.testing.assert_close(shifted, by_hand)
    torch.testing.assert_close(latents.decode(vae, shifted), expected)
