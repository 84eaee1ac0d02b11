"""Where each call comes in: who calls, what was asked, and whether a test wants it refused."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import jwt

from ourvidz.errors import OurVidzError, PermissionDenied, Unauthenticated
from ourvidz.testing.refusals import refusing
from ourvidz.testing.world import World

AUDIENCE = "authenticated"
OPERATOR_ROLE = "service_role"


@dataclass(frozen=True, slots=True)
class Received:
    """One call as it came in."""

    method: str
    """As the contract names it; AdminService's as `Admin/GetCredits`."""
    user_id: str
    request: Any
    """The contract's message; of an upload, the list of them."""


class Reception:
    """Lets calls in, one at a time. `secret` is what tokens are signed with (HS256)."""

    def __init__(self, world: World, *, secret: str) -> None:
        self.received: list[Received] = []
        self.refusals: defaultdict[str, deque[OurVidzError]] = defaultdict(deque)
        """What the next calls of each method are answered with."""
        self._world = world
        self._secret = secret

    def token(self, user_id: str, *, operator: bool) -> str:
        """Return a token of a user that is good for a day."""
        claims = {
            "aud": AUDIENCE,
            "sub": user_id,
            "role": OPERATOR_ROLE if operator else AUDIENCE,
            "exp": datetime.now(UTC) + timedelta(days=1),
        }
        return jwt.encode(claims, self._secret, algorithm="HS256")

    @contextmanager
    def call(
        self, method: str, request: Any, context: grpc.ServicerContext, *, operators_only: bool = False
    ) -> Iterator[str]:
        """Give the caller's id, and the world for the block; what is raised in it answers the call."""
        with refusing(context), self._world.changed:
            claims = self._claims(context)
            self.received.append(Received(method, claims["sub"], request))
            if operators_only and claims.get("role") != OPERATOR_ROLE:
                raise PermissionDenied("Only operators of this server may do this.")
            if self.refusals[method]:
                raise self.refusals[method].popleft()
            yield claims["sub"]

    def _claims(self, context: grpc.ServicerContext) -> dict[str, Any]:
        authorization = next((value for key, value in context.invocation_metadata() if key == "authorization"), "")
        if not authorization:
            raise Unauthenticated("A token is missing: send the header `Authorization: Bearer <token>`.")
        try:
            return jwt.decode(
                str(authorization).removeprefix("Bearer ").strip(),
                self._secret,
                algorithms=["HS256"],
                audience=AUDIENCE,
                options={"require": ["exp", "sub", "aud"], "verify_iat": False},
            )
        except jwt.ExpiredSignatureError as error:
            raise Unauthenticated("The token has expired.") from error
        except (jwt.PyJWTError, ValueError) as error:
            raise Unauthenticated("The token is not valid.") from error
