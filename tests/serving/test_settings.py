"""Settings come from the environment, and wrong ones stop the start with words that help."""

from __future__ import annotations

import pytest
from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from ourvidz_serving.settings import Port, ServerSettings, load


class PainterSettings(ServerSettings):
    model_config = SettingsConfigDict(env_prefix="OURVIDZ_PAINTER_")
    grpc_port: Port = 50099
    model: str = Field(description="The model to paint with.", examples=["miniature"])


@pytest.fixture(autouse=True)
def model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OURVIDZ_PAINTER_MODEL", "miniature")


def test_a_server_has_its_own_prefix_and_its_own_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(PainterSettings).grpc_port == 50099
    monkeypatch.setenv("OURVIDZ_PAINTER_GRPC_PORT", "7001")
    monkeypatch.setenv("OURVIDZ_GRPC_PORT", "7002")
    monkeypatch.setenv("OURVIDZ_METRICS_PORT", "7003")
    settings = load(PainterSettings)
    assert settings.grpc_port == 7001
    assert settings.metrics_port == 0, "another server's port is not this one's"


def test_what_all_servers_share_has_one_name_that_a_server_may_override(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OURVIDZ_SERVICE_TOKEN", "one-token-for-all-servers")
    monkeypatch.setenv("OURVIDZ_LOG_LEVEL", "warning")
    settings = load(PainterSettings)
    assert settings.service_token == SecretStr("one-token-for-all-servers")
    assert settings.log_level == "warning"
    monkeypatch.setenv("OURVIDZ_PAINTER_LOG_LEVEL", "debug")
    assert load(PainterSettings).log_level == "debug"
    assert load(ServerSettings).log_level == "warning"


def test_an_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OURVIDZ_PAINTER_GRPC_PORT", "")
    monkeypatch.setenv("OURVIDZ_SERVICE_TOKEN", "")
    settings = load(PainterSettings)
    assert settings.grpc_port == 50099
    assert settings.service_token is None


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("OURVIDZ_PAINTER_GRPC_PORT", "many", ["valid integer", "Port of the gRPC server", "50051"]),
        ("OURVIDZ_PAINTER_GRPC_PORT", "70000", ["65535"]),
        ("OURVIDZ_PAINTER_MODEL", "", ["is missing", "The model to paint with.", "OURVIDZ_PAINTER_MODEL=miniature"]),
        ("OURVIDZ_LOG_LEVEL", "loud", ["'debug', 'info', 'warning' or 'error'"]),
        ("OURVIDZ_PAINTER_LOG_LEVEL", "loud", ["'debug', 'info', 'warning' or 'error'"]),
        ("OURVIDZ_SERVICE_TOKEN", "hunter2", ["at least 16 visible ASCII characters"]),
        ("OURVIDZ_SERVICE_TOKEN", "a token with spaces in it", ["at least 16 visible ASCII characters"]),
        ("OURVIDZ_DRAIN_GRACE_S", "-1", ["greater than or equal to 0"]),
    ],
)
def test_a_bad_value_ends_the_process_and_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], variable: str, value: str, said: list[str]
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SystemExit) as ended:
        load(PainterSettings)
    text = capsys.readouterr().err
    assert ended.value.code == 2
    assert f"\n  {variable}: " in text
    assert [words for words in said if words not in text] == []
    assert not value or f"{value!r}" not in text


def test_all_wrong_settings_are_told_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OURVIDZ_PAINTER_GRPC_PORT", "many")
    monkeypatch.setenv("OURVIDZ_LOG_FORMAT", "xml")
    monkeypatch.delenv("OURVIDZ_PAINTER_MODEL")
    with pytest.raises(SystemExit):
        load(PainterSettings)
    text = capsys.readouterr().err
    assert all(name in text for name in ("OURVIDZ_PAINTER_GRPC_PORT", "OURVIDZ_LOG_FORMAT", "OURVIDZ_PAINTER_MODEL"))
