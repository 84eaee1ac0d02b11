"""Where the service is, and who calls it: what a client is given, or reads from its environment."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Self

from ourvidz.errors import Unauthenticated

DEFAULT_ADDRESS = "127.0.0.1:50051"
DEFAULT_URL = "http://127.0.0.1:8000"


@dataclass(frozen=True, slots=True)
class Address:
    """A gateway, and the token that its calls carry. Raises `Unauthenticated` for what can't be one."""

    grpc: str = DEFAULT_ADDRESS
    """The gRPC API's `host:port`."""
    token: str | None = field(default=None, repr=False)
    url: str = DEFAULT_URL
    """The REST API's base; only relative asset URLs need it."""

    def __post_init__(self) -> None:
        if self.token is not None and not all("!" <= character <= "~" for character in self.token):
            raise Unauthenticated("The token holds characters that no token has")

    @classmethod
    def from_environment(cls) -> Self:
        """Read `OURVIDZ_GRPC`, `OURVIDZ_TOKEN` and `OURVIDZ_URL`, or take their defaults."""
        return cls(
            os.environ.get("OURVIDZ_GRPC") or DEFAULT_ADDRESS,
            os.environ.get("OURVIDZ_TOKEN") or None,
            os.environ.get("OURVIDZ_URL") or DEFAULT_URL,
        )

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What each call carries."""
        return (("authorization", f"Bearer {self.token}"),) if self.token else ()
