from pathlib import Path

import pytest
from pydantic import ValidationError

from ourvidz_serving.storage import LocalStore, S3Store, StorageSettings, open_store

S3 = {"kind": "s3", "endpoint": "http://minio:9000", "access_key": "key", "secret_key": "very-secret"}
LOCAL = {"kind": "local", "path": "/objects"}
SIGNED = {**LOCAL, "public_url": "http://127.0.0.1:8000", "signing_secret": "very-secret" * 3}


def set_environment(monkeypatch: pytest.MonkeyPatch, values: dict[str, str]) -> None:
    for name, value in values.items():
        monkeypatch.setenv(f"OURVIDZ_STORAGE_{name.upper()}", value)


@pytest.mark.parametrize(("values", "kind"), [(S3, S3Store), (LOCAL, LocalStore), (SIGNED, LocalStore)])
async def test_the_environment_says_which_store_is_opened(
    monkeypatch: pytest.MonkeyPatch, values: dict[str, str], kind: type
):
    set_environment(monkeypatch, values)

    store = open_store(StorageSettings())

    assert isinstance(store, kind)
    await store.close()


@pytest.mark.parametrize(
    ("values", "missing"),
    [
        *((S3, name) for name in ("endpoint", "access_key", "secret_key")),
        (LOCAL, "path"),
        (SIGNED, "public_url"),
        (SIGNED, "signing_secret"),
    ],
)
def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, values: dict[str, str], missing: str):
    set_environment(monkeypatch, {name: value for name, value in values.items() if name != missing})

    with pytest.raises(ValidationError, match=f"OURVIDZ_STORAGE_{missing.upper()} is not set"):
        StorageSettings()


@pytest.mark.parametrize("url", ["minio:9000", "ftp://minio", "http://", "http://minio/path", "http://minio?a=b"])
def test_an_endpoint_that_is_no_plain_url_is_refused(monkeypatch: pytest.MonkeyPatch, url: str):
    set_environment(monkeypatch, {**S3, "endpoint": url})

    with pytest.raises(ValidationError, match="for example http://minio:9000"):
        StorageSettings()


def test_a_short_signing_secret_is_refused(monkeypatch: pytest.MonkeyPatch):
    set_environment(monkeypatch, {**SIGNED, "signing_secret": "s" * 31})

    with pytest.raises(ValidationError, match="at least 32 bytes"):
        StorageSettings()


@pytest.mark.parametrize("values", [S3, SIGNED])
def test_secrets_are_not_printed(monkeypatch: pytest.MonkeyPatch, values: dict[str, str]):
    set_environment(monkeypatch, values)

    assert "very-secret" not in repr(StorageSettings())


def test_a_relative_folder_is_where_we_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    set_environment(monkeypatch, {**LOCAL, "path": "objects"})

    assert StorageSettings().path == Path("objects")
