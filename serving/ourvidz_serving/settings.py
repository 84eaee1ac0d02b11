"""The settings that every server has, and how a server reads its own.

A server's settings are one class, read once at its start and passed in:

    class SdxlSettings(ServerSettings):
        model_config = SettingsConfigDict(env_prefix="OURVIDZ_SDXL_")
        grpc_port: Port = 50061
        model: str = Field("miniature", description="The model to render with.")

    settings = load(SdxlSettings)

Hosts and ports then have the server's own prefix (`OURVIDZ_SDXL_GRPC_PORT`). The service token, the log settings and
the drain time may have it too; without, they are the ones that all servers share (`OURVIDZ_SERVICE_TOKEN`).
"""

from __future__ import annotations

import os
import sys
from ipaddress import ip_address
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

Port = Annotated[int, Field(ge=0, le=65535)]
"""A TCP port; 0 takes a free one."""


def _split(value: Any) -> Any:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
"""Several values in one variable, between commas."""

LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["auto", "console", "json"]

SHARED_PREFIX = "OURVIDZ_"
SHARED = frozenset({"service_token", "log_level", "log_format", "drain_grace_s"})
"""Fields that a server without a value of its own takes from the variables that all servers share."""

MIN_TOKEN_LENGTH = 16


class SettingsError(Exception):
    """Settings that are good one by one don't go together; the server can't start. The message is for operators."""


class ServerSettings(BaseSettings):
    """What every server can be told through its environment. An empty variable counts as not set."""

    model_config = SettingsConfigDict(env_prefix=SHARED_PREFIX, env_ignore_empty=True, frozen=True, extra="ignore")

    grpc_host: str = Field("127.0.0.1", description="Address that the gRPC server listens on.", examples=["127.0.0.1"])
    grpc_port: Port = Field(0, description="Port of the gRPC server; 0 takes a free one.", examples=[50051])
    metrics_host: str = Field("127.0.0.1", description="Address that /metrics is served on.", examples=["127.0.0.1"])
    metrics_port: Port = Field(0, description="Port of /metrics; 0 takes a free one.", examples=[9100])
    service_token: SecretStr | None = Field(
        None,
        description="Secret that servers show each other; needed as soon as they leave loopback.",
        examples=["$(openssl rand -hex 32)"],
    )
    log_level: LogLevel = Field(
        "info",
        description="The least important lines to log.",
        examples=["info"],
    )
    log_format: LogFormat = Field(
        "auto",
        description="How log lines look; auto is console on a terminal and JSON elsewhere.",
        examples=["json"],
    )
    drain_grace_s: float = Field(
        25.0,
        ge=0,
        allow_inf_nan=False,
        description="Seconds that running calls may take to end when the server is told to stop.",
        examples=[25],
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Look at given values first, then at the server's own variables, then at those that all servers share."""
        return init_settings, env_settings, _SharedVariables(settings_cls), dotenv_settings, file_secret_settings

    @field_validator("service_token")
    @classmethod
    def _fits_a_header(cls, token: SecretStr | None) -> SecretStr | None:
        if token is not None:
            text = token.get_secret_value()
            if len(text) < MIN_TOKEN_LENGTH or not all("!" <= character <= "~" for character in text):
                raise ValueError(f"must be at least {MIN_TOKEN_LENGTH} visible ASCII characters, without spaces")
        return token

    @property
    def on_loopback(self) -> bool:
        """Whether the gRPC server can be reached from this machine only."""
        if self.grpc_host == "localhost":
            return True
        try:
            return ip_address(self.grpc_host.strip("[]")).is_loopback
        except ValueError:
            return False


class _SharedVariables(EnvSettingsSource):
    def __init__(self, settings_cls: type[BaseSettings]) -> None:
        super().__init__(settings_cls, env_prefix=SHARED_PREFIX)

    def __call__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__call__().items() if name in SHARED}


Settings = TypeVar("Settings", bound=BaseSettings)


def load(settings_class: type[Settings], **given: Any) -> Settings:
    """Read a server's settings from the environment; values that are `given` win over it.

    A missing or bad value ends the process with exit code 2, after one paragraph on stderr for each: the variable, what
    is wrong, what it is for and an example. Values themselves are never printed, since any of them may be a secret.
    """
    try:
        return settings_class(**given)
    except ValidationError as error:
        print(describe(settings_class, error), file=sys.stderr)  # noqa: T201  # logs are not configured yet
        raise SystemExit(2) from None


def describe(settings_class: type[BaseSettings], error: ValidationError) -> str:
    """Return what an operator must read to put wrong settings right."""
    lines = ["The server can't start, because its settings are wrong:"]
    for problem in error.errors(include_input=False, include_url=False):
        wrong = "is missing" if problem["type"] == "missing" else problem["msg"].removeprefix("Value error, ")
        name = str(problem["loc"][0]) if problem["loc"] else ""
        if name not in settings_class.model_fields:
            # A rule over several fields names its variables itself.
            lines.append(f"\n  {wrong}")
            continue
        variable = variable_of(settings_class, name)
        lines.append(f"\n  {variable}: {wrong}")
        # A server that only changes a default says no more about the field, so its base class is asked, too.
        fields = [fields[name] for fields in map(_fields_of, settings_class.__mro__) if name in fields]
        lines += [f"    {field.description}" for field in fields if field.description][:1]
        lines += [f"    Example: {variable}={field.examples[0]}" for field in fields if field.examples][:1]
    return "\n".join(lines)


def variable_of(settings_class: type[BaseSettings], name: str) -> str:
    """Return the environment variable that sets the field `name`: of several, the one that is set."""
    own = f"{settings_class.model_config.get('env_prefix', '')}{name}".upper()
    if name in SHARED and issubclass(settings_class, ServerSettings) and own not in os.environ:
        return f"{SHARED_PREFIX}{name}".upper()
    return own


def _fields_of(candidate: type[Any]) -> dict[str, FieldInfo]:
    return candidate.model_fields if issubclass(candidate, BaseSettings) else {}
