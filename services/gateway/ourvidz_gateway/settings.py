"""What the gateway can be told through its environment."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from ourvidz_gateway.jobs import Kind
from ourvidz_gateway.urls import HOST, split_url
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
    webhook_url: str | None = Field(
        None,
        pattern=r"^https?://",
        description="Where every job's end is told; may be a private address. None: only jobs' own webhooks are called.",
        examples=["https://app.example.com/hooks/ourvidz"],
    )
    webhook_secret: SecretStr | None = Field(
        None,
        description="Secret that webhooks are signed with, after the Standard Webhooks scheme; needed to send any.",
        examples=["whsec_$(openssl rand -base64 24)"],
    )
    reference_quota_bytes: int = Field(
        2**30, ge=0, description="Bytes that one user's uploaded reference images may take in all.", examples=[2**30]
    )

    credits_grant: int = Field(
        0, ge=0, le=10**9, description="Credits that each new user is given with their first job.", examples=[1000]
    )
    user_open_jobs: int | None = Field(
        None,
        ge=1,
        description="Jobs that one user may have waiting or running at once; none: any number.",
        examples=[50],
    )
    user_jobs_per_minute: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="Jobs that one user may ask for in a minute, in the long run; none: any number.",
        examples=[60],
    )
    user_job_burst: int = Field(
        20, ge=1, description="Jobs that one user may ask for at once before the rate per minute holds.", examples=[20]
    )

    allow_adult_content: bool = Field(
        False,
        description="Whether prompts may ask for adult content. What involves minors is always refused.",
        examples=[True],
    )
    moderation_url: str | None = Field(
        None,
        pattern=r"^https?://",
        description="A moderation endpoint of OpenAI's shape that prompts are put to; none: only our own rules hold.",
        examples=["https://api.openai.com/v1/moderations"],
    )
    moderation_key: SecretStr | None = Field(
        None, description="The moderation endpoint's API key.", examples=["$(cat /run/secrets/moderation-key)"]
    )
    moderation_model: str | None = Field(
        None, description="The model that the moderation endpoint is to use.", examples=["omni-moderation-latest"]
    )

    cors_origins: Names = Field(
        (),
        description="Origins of web pages whose scripts may call the REST API, between commas.",
        examples=["https://app.example.com,http://localhost:5173"],
    )
    ticket_expiry: timedelta = Field(
        timedelta(minutes=10),
        gt=timedelta(0),
        le=timedelta(days=1),
        description="How long a ticket for a job's event stream opens it, in seconds or ISO 8601.",
        examples=["PT10M"],
    )

    keep_jobs: timedelta = Field(
        timedelta(days=90),
        ge=timedelta(days=1),
        description="How long the records of ended jobs are kept; their outputs stay until deleted.",
        examples=["P90D"],
    )
    keep_milestones: timedelta = Field(
        timedelta(days=30),
        ge=timedelta(hours=1),
        description="How long ended jobs' events are kept.",
        examples=["P30D"],
    )
    keep_deliveries: timedelta = Field(
        timedelta(days=30),
        ge=timedelta(days=1),
        description="How long webhook deliveries are kept after their end.",
        examples=["P30D"],
    )
    keep_idempotency_keys: timedelta = Field(
        timedelta(hours=24),
        ge=timedelta(minutes=1),
        description="For how long the same idempotency key answers with the same job.",
        examples=["PT24H"],
    )
    keep_policy_audit: timedelta = Field(
        timedelta(days=365),
        ge=timedelta(days=1),
        description="How long it is kept who was refused by which rule of the prompt policy.",
        examples=["P365D"],
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

    @field_validator("webhook_secret")
    @classmethod
    def _is_a_webhook_secret(cls, secret: SecretStr | None) -> SecretStr | None:
        if secret is None:
            return None
        try:
            size = len(base64.b64decode(secret.get_secret_value().removeprefix("whsec_"), validate=True))
        except ValueError:
            size = 0
        if not 24 <= size <= 64:
            raise ValueError("must be whsec_ and 24 to 64 bytes in base64")
        return secret

    @field_validator("webhook_url")
    @classmethod
    def _can_be_called(cls, url: str | None) -> str | None:
        if url is not None and (isinstance(parts := split_url(url), str) or "@" in parts.netloc):
            raise ValueError("must be a URL with a host, without blanks and without a user name or password")
        return url

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            scheme, _, host = origin.partition("://")
            if scheme not in ("http", "https") or not HOST.fullmatch(host):
                raise ValueError("each origin must be http:// or https:// and a host, with a port where needed")
        return origins

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

    @model_validator(mode="after")
    def _can_sign_webhooks(self) -> Self:
        if self.webhook_secret is None and (self.webhook_url or self.webhook_hosts):
            raise ValueError(
                "OURVIDZ_WEBHOOK_SECRET (for example whsec_$(openssl rand -base64 24)) must be set where "
                "OURVIDZ_WEBHOOK_URL or OURVIDZ_WEBHOOK_HOSTS is: receivers check webhooks with it"
            )
        return self

    @property
    def renderers(self) -> Mapping[Kind, tuple[str, ...]]:
        """The configured addresses by kind; empty where there are none."""
        return {Kind.SDXL: self.renderers_sdxl, Kind.WAN: self.renderers_wan, Kind.ENHANCER: self.renderers_enhancer}
