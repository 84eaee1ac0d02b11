"""The enhancer's settings."""

from __future__ import annotations

import pickle

import pytest
from pydantic import ValidationError

from ourvidz_enhancer.settings import WAN, EnhancerSettings
from ourvidz_enhancer.task import Style


def test_the_defaults_need_nothing_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = EnhancerSettings()
    assert (settings.grpc_port, settings.metrics_port, settings.style) == (50063, 9103, Style.FEW_SHOT)
    config = settings.engine_config()
    assert (config["model"], config["tokenizer"]) == ("miniature", "miniature")
    assert pickle.loads(pickle.dumps(config)) == config


def test_a_real_model_counts_as_wan_does_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OURVIDZ_ENHANCER_MODEL", "Qwen/Qwen2.5-7B-Instruct")
    monkeypatch.setenv("OURVIDZ_ENHANCER_STYLE", "chat")
    assert EnhancerSettings().style is Style.CHAT
    assert EnhancerSettings().engine_config()["tokenizer"] == WAN
    monkeypatch.setenv("OURVIDZ_ENHANCER_TOKENIZER", "/models/wan")
    assert EnhancerSettings().engine_config()["tokenizer"] == "/models/wan"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("style", "few-shot"),
        ("temperature", 0),
        ("top_k", 0),
        ("top_p", 0),
        ("top_p", 1.1),
        ("repetition_penalty", 0.9),
        ("model", ""),
    ],
)
def test_a_bad_value_is_refused(name: str, value: object) -> None:
    with pytest.raises(ValidationError):
        EnhancerSettings(**{name: value})
