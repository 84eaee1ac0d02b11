from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from ourvidz_sdxl.settings import SdxlSettings
from ourvidz_serving.settings import load


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)


def test_without_any_variable_the_miniature_is_served_on_loopback(tmp_path: Path) -> None:
    settings = load(SdxlSettings)
    assert (settings.model, settings.on_loopback) == ("miniature", True)
    assert (settings.grpc_port, settings.metrics_port) == (50061, 9101)
    assert settings.buckets == ("sdxl-image-fast", "sdxl-image-high")
    assert settings.model_cache == tmp_path / ".cache/ourvidz/models"


def test_the_cache_follows_the_users_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert load(SdxlSettings).model_cache == tmp_path / "cache/ourvidz/models"


def test_each_variable_reaches_the_engine_as_plain_data(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {
        "MODEL": "/models/one.safetensors",
        "MODEL_CACHE": "/cache",
        "SINGLE_FILE_CONFIG": "/models/config",
        "DEVICE": "cuda:1",
        "DTYPE": "float16",
        "THREADS": "8",
        "IP_ADAPTER": "/models/adapter",
        "IP_ADAPTER_SUBFOLDER": "weights",
        "IP_ADAPTER_WEIGHT": "plus.safetensors",
        "IP_ADAPTER_IMAGE_ENCODER": "encoder",
    }
    for name, value in variables.items():
        monkeypatch.setenv(f"OURVIDZ_SDXL_{name}", value)
    config = load(SdxlSettings).engine_config()
    assert config == {
        "model": "/models/one.safetensors",
        "model_cache": "/cache",
        "single_file_config": "/models/config",
        "device": "cuda:1",
        "dtype": "float16",
        "threads": 8,
        "ip_adapter": {
            "name": "/models/adapter",
            "subfolder": "weights",
            "weight": "plus.safetensors",
            "image_encoder": "encoder",
        },
    }
    assert pickle.loads(pickle.dumps(config)) == config


def test_without_an_ip_adapter_the_engine_is_told_of_none() -> None:
    assert load(SdxlSettings).engine_config()["ip_adapter"] is None


def test_an_ip_adapter_lies_where_the_published_one_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OURVIDZ_SDXL_IP_ADAPTER", "h94/IP-Adapter")
    assert load(SdxlSettings).engine_config()["ip_adapter"] == {
        "name": "h94/IP-Adapter",
        "subfolder": "sdxl_models",
        "weight": "ip-adapter_sdxl_vit-h.safetensors",
        "image_encoder": "models/image_encoder",
    }


def test_buckets_stand_between_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OURVIDZ_SDXL_BUCKETS", "one, two,")
    assert load(SdxlSettings).buckets == ("one", "two")


@pytest.mark.parametrize(
    ("name", "value"), [("BUCKETS", ","), ("DTYPE", "float8"), ("THREADS", "0"), ("GRPC_PORT", "70000")]
)
def test_a_bad_value_ends_the_start_and_its_variable_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str
) -> None:
    monkeypatch.setenv(f"OURVIDZ_SDXL_{name}", value)
    with pytest.raises(SystemExit) as exit_:
        load(SdxlSettings)
    assert exit_.value.code == 2
    assert f"OURVIDZ_SDXL_{name}: " in capsys.readouterr().err
