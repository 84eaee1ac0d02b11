"""What the gateway can be told through its environment."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from ourvidz_gateway.jobs import Kind
from ourvidz_gateway.urls import HOST
from ourvidz_serving.settings import Names, Port, ServerSettings

MIN_SECRET_BYTES = 32


class GatewaySettings(ServerSettings):
    """The gateway's settings; storage has its own, `StorageSettings`."""

    grpc_port: Port = Field(50051, description="Port of the gRPC API; 0 takes a free one.", examples=[50051])
    metrics_port: Port = Field(9100, description="Port of /metrics; 0 takes a free one.", examples=[9100])
    rest_host: str = Field("127.0.0.1", description="Address that the REST API listens on.", examples=["10.0.0.5"])
    rest_port: Port = Field(8000, description="Port of the REST API; 0 takes a free one.", examples=[8000])

    database_url: SecretStr = Field(
        description="DSN of the PostgreSQL database that holds jobs and the queue.",
        examples=["postgresql://ourvidz:…@127.0.0.1:5432/ourvidz"],
    )

    jwt_secret: SecretStr | None = Field(
        None,
        description=f"Secret that users' tokens are signed with (HS256), at least {MIN_SECRET_BYTES} bytes.",
        examples=["$(openssl rand -hex 32)"],
    )
    jwks_url: str | None = Field(
        None,
        pattern=r"^https?://",
        description="Where the public keys are that users' tokens are signed with (RS256, ES256).",
        examples=["https://login.example.com/.well-known/jwks.json"],
    )
    jwt_audience: str = Field(
        "authenticated", min_length=1, description="The `aud` that tokens must have.", examples=["authenticated"]
    )

    catalog: Path | None = Field(
        None, description="A catalog of job types that takes the place of ours.", examples=["/etc/ourvidz/catalog.toml"]
    )
    renderers_sdxl: Names = Field(
        (),
        description="Addresses of SDXL renderers, host:port or dns:///name:port, between commas; none: no such jobs.",
        examples=["10.0.0.5:50061,10.0.0.6:50061"],
    )
    renderers_wan: Names = Field(
        (),
        description="Addresses of WAN renderers, host:port or dns:///name:port, between commas; none: no such jobs.",
        examples=["dns:///wan.ourvidz.svc:50062"],
    )
    renderers_enhancer: Names = Field(
        (),
        description="Addresses of enhancers, host:port or dns:///name:port, between commas; none: no enhanced jobs.",
        examples=["dns:///enhancer.ourvidz.svc:50063"],
    )

    enhance_language: Literal["zh", "en", "prompt"] = Field(
        "zh",
        description="The language that prompts are enhanced in; `prompt` keeps the prompt's own.",
        examples=["en"],
    )
    queue_limit: int = Field(1000, ge=1, description="Jobs that may wait in one queue.", examples=[1000])
    wait_limit_s: float = Field(
        3600,
        gt=0,
        allow_inf_nan=False,
        description="Seconds that a job may wait for a renderer before it fails.",
        examples=[3600],
    )
    url_expiry: timedelta = Field(
        timedelta(days=7),
        gt=timedelta(0),
        le=timedelta(days=7),
        description="How long a signed URL opens its asset, in seconds or ISO 8601; S3 allows 7 days at most.",
        examples=["P7D"],
    )
    lease_s: float = Field(
        5.0, ge=1, le=60, allow_inf_nan=False, description="Seconds after which a silent gateway is dead.", examples=[5]
    )
    reference_hosts: Names = Field(
        (),
        description="Hosts that reference images may be fetched from, between commas; a port where it isn't the usual one.",
        examples=["images.example.com,cdn.example.com:8443"],
    )
    allow_private_fetch: bool = Field(
        False,
        description="Whether users' URLs may lead to private addresses and be plain http: for tests and closed networks.",
        examples=[True],
    )
    webhook_hosts: Names = Field(
        (), description="Hosts that jobs may name for their webhook, between commas.", examples=["hooks.example.com"]
    )

    @field_validator("renderers_sdxl", "renderers_wan", "renderers_enhancer")
    @classmethod
    def _are_addresses(cls, addresses: tuple[str, ...]) -> tuple[str, ...]:
        for address in addresses:
            host, _, port = address.removeprefix("dns:///").rpartition(":")
            plain = ":" not in host or (host.startswith("[") and host.endswith("]"))
            if not host or not plain or "/" in host or not port.isdecimal() or not 1 <= int(port) <= 65535:
                raise ValueError("each address must be host:port or dns:///name:port")
        return addresses

    @field_validator("reference_hosts", "webhook_hosts")
    @classmethod
    def _are_hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        hosts = tuple(host.lower() for host in hosts)
        for host in hosts:
            if not HOST.fullmatch(host):
                raise ValueError("each host must be a name or an address, with a port where needed, and no more")
        return hosts

    @field_validator("jwt_secret")
    @classmethod
    def _is_long_enough(cls, secret: SecretStr | None) -> SecretStr | None:
        if secret is not None and len(secret.get_secret_value().encode()) < MIN_SECRET_BYTES:
            raise ValueError(f"must be at least {MIN_SECRET_BYTES} bytes")
        return secret

    @model_validator(mode="after")
    def _has_one_way_to_check_tokens(self) -> Self:
        if (self.jwt_secret is None) == (self.jwks_url is None):
            raise ValueError(
                "exactly one of OURVIDZ_JWT_SECRET (for example $(openssl rand -hex 32)) and OURVIDZ_JWKS_URL must be "
                "set: it says how users' tokens are checked"
            )
        return self

    @property
    def renderers(self) -> Mapping[Kind, tuple[str, ...]]:
        """The configured addresses by kind; empty where there are none."""
        return {Kind.SDXL: self.renderers_sdxl, Kind.WAN: self.renderers_wan, Kind.ENHANCER: self.renderers_enhancer}
