"""Where objects are kept, as the operator says it."""

from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, PositiveFloat, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from ourvidz_serving.storage.errors import StoreMisconfigured
from ourvidz_serving.storage.local import LocalStore
from ourvidz_serving.storage.object_store import ObjectStore
from ourvidz_serving.storage.s3 import S3Store
from ourvidz_serving.storage.signing import SHORTEST_SECRET_BYTES, UrlSigner


def _origin(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.path.strip("/") or parts.query:
        raise ValueError("must be an http or https URL without a path, for example http://minio:9000")
    return f"{parts.scheme}://{parts.netloc}"


def _secret(value: SecretStr) -> SecretStr:
    if len(value.get_secret_value().encode()) < SHORTEST_SECRET_BYTES:
        raise ValueError(f"must have at least {SHORTEST_SECRET_BYTES} bytes, for example from: openssl rand -hex 32")
    return value


class StorageSettings(BaseSettings):
    """`OURVIDZ_STORAGE_…`: the kind of store, and what that kind needs.

    A folder needs `path`, and where URLs are signed (in the gateway) `public_url` and `signing_secret`; an S3 server
    needs `endpoint`, `access_key` and `secret_key`.
    """

    model_config = SettingsConfigDict(env_prefix="OURVIDZ_STORAGE_", env_ignore_empty=True, frozen=True)

    kind: Literal["local", "s3"] = Field(description="A folder on this machine, or an S3 server.")

    path: Path | None = Field(None, description="The folder, for example /var/lib/ourvidz/objects.")
    public_url: str | None = Field(
        None, description="Where clients reach the gateway's REST front, for example http://127.0.0.1:8000."
    )
    signing_secret: Annotated[SecretStr, AfterValidator(_secret)] | None = Field(
        None, description="Signs URLs of local objects and nothing else; at least 32 bytes."
    )

    endpoint: Annotated[str, AfterValidator(_origin)] | None = Field(
        None, description="The S3 server, for example http://minio:9000."
    )
    access_key: str | None = Field(None, description="The S3 account's access key.")
    secret_key: SecretStr | None = Field(None, description="The S3 account's secret key.")
    region: str = Field("us-east-1", description="The region that requests are signed for and buckets are made in.")
    public_endpoint: Annotated[str, AfterValidator(_origin)] | None = Field(
        None, description="Where clients reach the S3 server, if elsewhere; for example https://files.example.com."
    )
    connect_timeout_s: PositiveFloat = Field(5.0, description="Seconds to connect, and of silence while sending.")
    read_timeout_s: PositiveFloat = Field(10.0, description="Seconds of silence while the server answers.")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        needed = {"local": ["path"], "s3": ["endpoint", "access_key", "secret_key"]}[self.kind]
        if self.kind == "local" and (self.signing_secret or self.public_url):
            needed += ["public_url", "signing_secret"]
        for name in needed:
            if getattr(self, name) is None:
                description = type(self).model_fields[name].description
                raise ValueError(f"OURVIDZ_STORAGE_{name.upper()} is not set. {description}")
        return self


def open_store(settings: StorageSettings) -> ObjectStore:
    """Return the store that the settings describe. Nothing is contacted: `ObjectStore.check` does that."""
    match settings:
        case StorageSettings(
            kind="local", path=Path() as path, public_url=str() as url, signing_secret=SecretStr() as secret
        ):
            return LocalStore(path, UrlSigner(secret.get_secret_value(), url))
        case StorageSettings(kind="local", path=Path() as path):
            return LocalStore(path)
        case StorageSettings(
            endpoint=str() as endpoint, access_key=str() as access_key, secret_key=SecretStr() as secret
        ):
            return S3Store(
                endpoint,
                access_key=access_key,
                secret_key=secret.get_secret_value(),
                region=settings.region,
                public_endpoint=settings.public_endpoint,
                connect_timeout_s=settings.connect_timeout_s,
                read_timeout_s=settings.read_timeout_s,
            )
    raise StoreMisconfigured("the storage settings are incomplete")
