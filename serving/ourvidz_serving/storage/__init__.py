"""Object storage: one interface, over an S3 server or over a local folder."""

from ourvidz_serving.storage.errors import (
    AccessDenied,
    InvalidKey,
    ObjectExists,
    ObjectNotFound,
    SignatureExpired,
    SignatureInvalid,
    StoreError,
    StoreMisconfigured,
    StoreUnavailable,
)
from ourvidz_serving.storage.local import LocalStore
from ourvidz_serving.storage.object_store import ObjectInfo, ObjectStore
from ourvidz_serving.storage.s3 import S3Store
from ourvidz_serving.storage.settings import StorageSettings, open_store
from ourvidz_serving.storage.signing import UrlSigner

__all__ = [
    "AccessDenied",
    "InvalidKey",
    "LocalStore",
    "ObjectExists",
    "ObjectInfo",
    "ObjectNotFound",
    "ObjectStore",
    "S3Store",
    "SignatureExpired",
    "SignatureInvalid",
    "StorageSettings",
    "StoreError",
    "StoreMisconfigured",
    "StoreUnavailable",
    "UrlSigner",
    "open_store",
]
