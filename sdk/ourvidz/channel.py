"""How the client is connected: channel options, and which calls gRPC repeats by itself."""

from __future__ import annotations

import json

import grpc
import grpc.aio

MAX_MESSAGE_BYTES = 16 * 2**20

_REPEATED = {
    # WatchJob is left out: the client resumes it itself, from the last event that it saw.
    # CreateJob may be repeated since every call of this client carries a request id.
    "ourvidz.api.jobs.v1.JobService": (
        "CreateJob",
        "GetJob",
        "ListJobs",
        "CancelJob",
        "GetQueueStatus",
        "GetCredits",
    ),
    # An upload that is repeated would be stored twice, and a delete would find nothing the second time.
    "ourvidz.api.assets.v1.AssetService": ("ListReferenceImages", "ListAssets"),
    # GrantCredits carries a request id, too. RetryDelivery is left out: each call sends the webhook again.
    "ourvidz.api.admin.v1.AdminService": (
        "GrantCredits",
        "GetCredits",
        "ListDeliveries",
        "ListQuarantined",
        "ReleaseQuarantined",
    ),
}
"""The calls that may be made again when it is not known what became of them."""

_SERVICE_CONFIG = {
    "methodConfig": [
        {
            "name": [
                {"service": service, "method": method} for service, methods in _REPEATED.items() for method in methods
            ],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.1s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}

_OPTIONS = (
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
    ("grpc.enable_retries", 1),
    # Pings keep a quiet `watch` from hanging on a connection that died without a word.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # One pool of connections per client, so that closing it closes its own connections and no other's.
    ("grpc.use_local_subchannel_pool", 1),
)


def open_channel(address: str) -> grpc.Channel:
    """Open a plaintext channel; nothing is sent until the first call."""
    return grpc.insecure_channel(address, options=_OPTIONS)


def open_async_channel(address: str) -> grpc.aio.Channel:
    """Open a plaintext channel for the running event loop; nothing is sent until the first call."""
    return grpc.aio.insecure_channel(address, options=_OPTIONS)
