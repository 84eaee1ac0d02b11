from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from ourvidz_serving.settings import load
from ourvidz_wan.settings import WanSettings

BUCKETS = {
    "image-fast",
    "image-high",
    "video-fast",
    "video-high",
    "image7b-fast-enhanced",
    "image7b-high-enhanced",
    "video7b-fast-enhanced",
    "video7b-high-enhanced",
}


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)


def test_without_any_variable_the_miniatures_are_served_on_loopback() -> None:
    settings = load(WanSettings)
    assert (settings.model, settings.on_loopback) == ("miniature", True)
    assert (settings.grpc_port, settings.metrics_port) == (50062, 9102)
    assert set(settings.buckets) == BUCKETS
    config = settings.engine_config()
    assert (config["model"], config["vace_model"], config["residency"]) == ("miniature", "miniature", "auto")


def test_a_real_model_has_a_real_one_for_start_and_end_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OURVIDZ_WAN_MODEL", "Wan-AI/Wan2.1-T2V-1.3B-Diffusers")
    assert load(WanSettings).engine_config()["vace_model"] == "Wan-AI/Wan2.1-VACE-1.3B-diffusers"


def test_each_variable_reaches_the_engine_as_plain_data(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {
        "MODEL": "/models/wan",
        "VACE_MODEL": "/models/vace",
        "MODEL_CACHE": "/cache",
        "RESIDENCY": "swap",
        "DEVICE": "cuda:1",
        "DTYPE": "bfloat16",
        "THREADS": "8",
    }
    for name, value in variables.items():
        monkeypatch.setenv(f"OURVIDZ_WAN_{name}", value)
    config = load(WanSettings).engine_config()
    assert config == {
        "model": "/models/wan",
        "vace_model": "/models/vace",
        "model_cache": "/cache",
        "residency": "swap",
        "device": "cuda:1",
        "dtype": "bfloat16",
        "threads": 8,
    }
    assert pickle.loads(pickle.dumps(config)) == config


def test_buckets_stand_between_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OURVIDZ_WAN_BUCKETS", "one, two,")
    assert load(WanSettings).buckets == ("one", "two")


@pytest.mark.parametrize(("name", "value"), [("BUCKETS", ","), ("RESIDENCY", "none"), ("DTYPE", "float8")])
def test_a_bad_value_ends_the_start_and_its_variable_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str
) -> None:
    monkeypatch.setenv(f"OURVIDZ_WAN_{name}", value)
    with pytest.raises(SystemExit) as exit_:
        load(WanSettings)
    assert exit_.value.code == 2
    assert f"OURVIDZ_WAN_{name}: " in capsys.readouterr().err
