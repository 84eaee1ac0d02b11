"""How the client is connected: channel options, and which calls gRPC repeats by itself."""

from __future__ import annotations

import json

import grpc

MAX_MESSAGE_BYTES = 16 * 2**20

_SERVICE = "ourvidz.api.jobs.v1.JobService"
_SERVICE_CONFIG = {
    "methodConfig": [
        {
            # WatchJob is left out: the client resumes it itself, from the last event that it saw.
            # CreateJob may be repeated since every call of this client carries a request id.
            "name": [
                {"service": _SERVICE, "method": method}
                for method in ("CreateJob", "GetJob", "ListJobs", "CancelJob", "GetQueueStatus", "GetCredits")
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


def open_channel(address: str) -> grpc.Channel:
    """Open a plaintext channel; nothing is sent until the first call.

    Pings keep a quiet `watch` from hanging on a connection that died without a word.
    """
    return grpc.insecure_channel(
        address,
        options=[
            ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
            ("grpc.enable_retries", 1),
            ("grpc.keepalive_time_ms", 30_000),
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 2_000),
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            # One pool of connections per client, so that closing it closes its own connections and no other's.
            ("grpc.use_local_subchannel_pool", 1),
        ],
    )
