"""Whose token is taken, and what all others are told."""

import asyncio
import json
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from ourvidz_gateway.auth import Authenticator, Principal, PublicKeys, SecretKey
from ourvidz_gateway.errors import IdentityProviderUnavailable, Unauthenticated
from support import fronts

PAST = datetime.now(UTC) - timedelta(hours=1)
FUTURE = datetime.now(UTC) + timedelta(hours=1)


@pytest.fixture
def authenticator() -> Authenticator:
    return Authenticator(SecretKey(fronts.SECRET), audience="authenticated")


async def test_a_valid_token_names_its_user_and_role(authenticator):
    principal = await authenticator.authenticate(f"Bearer {fronts.token('alice', role='service_role')}")

    assert principal == Principal("alice", "service_role")
    assert principal.is_operator


@pytest.mark.parametrize("role", [None, 7, ["service_role"], "authenticated"])
async def test_nothing_but_the_operators_role_makes_an_operator(authenticator, role):
    principal = await authenticator.authenticate(f"bearer   {fronts.token('alice', role=role)} ")

    assert not principal.is_operator


async def test_a_provider_whose_clock_is_ahead_locks_nobody_out(authenticator):
    principal = await authenticator.authenticate(f"Bearer {fronts.token('alice', iat=FUTURE)}")

    assert principal.user_id == "alice"


@pytest.mark.parametrize("header", [None, ""])
async def test_without_a_token_the_caller_is_told_how_to_send_one(authenticator, header):
    with pytest.raises(Unauthenticated, match="Authorization: Bearer"):
        await authenticator.authenticate(header)


@pytest.mark.parametrize("header", ["Basic YTpi", "Bearer", "Bearer ", "token"])
async def test_what_is_no_bearer_token_is_refused(authenticator, header):
    with pytest.raises(Unauthenticated, match="must be `Bearer <token>`"):
        await authenticator.authenticate(header)


class CountedKey(SecretKey):
    """Counts how often it was used to check a token."""

    checks = 0

    async def find(self, token):
        self.checks += 1
        return await super().find(token)


async def test_a_token_that_is_shown_again_is_not_checked_again_but_counts_no_longer_than_it_is_valid():
    key = CountedKey(fronts.SECRET)
    authenticator = Authenticator(key, audience="authenticated")
    short = fronts.token("alice", exp=datetime.now(UTC) + timedelta(seconds=2))

    shown = [await authenticator.authenticate(f"Bearer {short}") for _ in range(3)]

    assert shown == [Principal("alice", None)] * 3
    assert key.checks == 1
    await asyncio.sleep(2)
    with pytest.raises(Unauthenticated, match="has expired"):
        await authenticator.authenticate(f"Bearer {short}")


async def test_a_checked_token_lets_no_other_one_in(authenticator):
    good = fronts.token("alice")
    await authenticator.authenticate(f"Bearer {good}")

    with pytest.raises(Unauthenticated, match="not valid"):
        await authenticator.authenticate(f"Bearer {good[:-4]}AAAA")
    assert (await authenticator.authenticate(f"Bearer {fronts.token('bob')}")).user_id == "bob"


async def test_a_token_is_checked_again_after_a_while(monkeypatch):
    key = CountedKey(fronts.SECRET)
    authenticator = Authenticator(key, audience="authenticated")
    monkeypatch.setattr("ourvidz_gateway.auth.REMEMBERED_S", 0.0)

    for _ in range(3):
        await authenticator.authenticate(f"Bearer {fronts.token('alice')}")

    assert key.checks == 3


async def test_an_expired_token_is_called_that(authenticator):
    with pytest.raises(Unauthenticated, match="has expired"):
        await authenticator.authenticate(f"Bearer {fronts.token(exp=PAST)}")


@pytest.mark.parametrize(
    "token",
    [
        fronts.token(secret="another secret, long enough for HS256 too"),
        fronts.token(exp=PAST, secret="another secret, long enough for HS256 too"),
        fronts.token(aud="anon"),
        fronts.token(aud=None),
        fronts.token(exp=None),
        fronts.token(nbf=FUTURE),
        fronts.token(user=""),
        fronts.token(sub=None),
        fronts.token(user="a" * 201),
        fronts.token(user="a\0b"),
        fronts.token(user="a\nb"),
        jwt.encode({"sub": "alice", "aud": "authenticated", "exp": FUTURE}, key=None, algorithm="none"),
        jwt.encode({"sub": "alice", "aud": "authenticated", "exp": FUTURE}, fronts.SECRET * 2, algorithm="HS512"),
        jwt.encode({"sub": 7, "aud": "authenticated", "exp": FUTURE}, fronts.SECRET),
        "not.a.token",
        "é",
    ],
)
async def test_every_other_token_is_refused_without_saying_why(authenticator, token):
    with pytest.raises(Unauthenticated) as caught:
        await authenticator.authenticate(f"Bearer {token}")
    assert caught.value.message == "The token is not valid."


def test_a_short_secret_is_refused():
    with pytest.raises(ValueError, match="at least 32 bytes"):
        SecretKey("too short")


class KeyServer:
    """An identity provider's JWKS address."""

    def __init__(self) -> None:
        self.body = b'{"keys": []}'
        self.status = 200
        self.requests = 0
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                owner.requests += 1
                self.send_response(owner.status)
                self.send_header("Content-Length", str(len(owner.body)))
                self.end_headers()
                self.wfile.write(owner.body)

            def log_message(self, *args) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/jwks.json"

    def publish(self, **keys) -> None:
        published = []
        for kid, key in keys.items():
            algorithm = jwt.get_algorithm_by_name("ES256" if isinstance(key, ec.EllipticCurvePrivateKey) else "RS256")
            jwk = json.loads(algorithm.to_jwk(key.public_key()))
            published.append({**jwk, "kid": kid, "use": "sig"})
        self.body = json.dumps({"keys": published}).encode()


@pytest.fixture
def provider():
    server = KeyServer()
    server.thread.start()
    yield server
    server.server.shutdown()
    server.thread.join()
    server.server.server_close()


def signed(key, algorithm: str, kid: str | None, **claims) -> str:
    stated = {"sub": "alice", "aud": "authenticated", "exp": FUTURE, **claims}
    return jwt.encode(stated, key, algorithm=algorithm, headers=None if kid is None else {"kid": kid})


RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())


@pytest.mark.parametrize(("key", "algorithm"), [(RSA_KEY, "RS256"), (EC_KEY, "ES256")])
async def test_tokens_of_an_identity_provider_are_taken(provider, key, algorithm):
    provider.publish(one=key)
    authenticator = Authenticator(PublicKeys(provider.url), audience="authenticated")

    for _ in range(3):
        principal = await authenticator.authenticate(f"Bearer {signed(key, algorithm, 'one')}")

    assert principal.user_id == "alice"
    assert provider.requests == 1


async def test_an_unknown_key_can_not_make_the_gateway_ask_the_provider_again_and_again(provider):
    provider.publish(one=EC_KEY)
    authenticator = Authenticator(PublicKeys(provider.url), audience="authenticated")

    for kid in ("two", "three", "four"):
        with pytest.raises(Unauthenticated):
            await authenticator.authenticate(f"Bearer {signed(EC_KEY, 'ES256', kid)}")

    assert provider.requests == 1


async def test_a_secret_made_of_the_public_key_is_refused(provider):
    provider.publish(one=EC_KEY)
    authenticator = Authenticator(PublicKeys(provider.url), audience="authenticated")
    public = json.loads(provider.body)["keys"][0]["x"].encode()

    with pytest.raises(Unauthenticated, match="not valid"):
        await authenticator.authenticate(f"Bearer {signed(public, 'HS256', 'one')}")


@pytest.mark.parametrize(
    "token",
    [
        signed(ec.generate_private_key(ec.SECP256R1()), "ES256", "one"),
        signed(EC_KEY, "ES256", None),
        signed(EC_KEY, "ES256", "one", aud="anon"),
        signed(RSA_KEY, "RS512", "one"),
    ],
)
async def test_other_tokens_are_refused_with_public_keys_too(provider, token):
    provider.publish(one=EC_KEY)
    authenticator = Authenticator(PublicKeys(provider.url), audience="authenticated")

    with pytest.raises(Unauthenticated, match="not valid"):
        await authenticator.authenticate(f"Bearer {token}")


@pytest.mark.parametrize(("status", "body"), [(500, b""), (200, b"<html>"), (200, b'{"keys": []}')])
async def test_a_provider_that_fails_is_not_blamed_on_the_caller(provider, status, body):
    provider.status, provider.body = status, body
    authenticator = Authenticator(PublicKeys(provider.url), audience="authenticated")

    with pytest.raises(IdentityProviderUnavailable) as caught:
        await authenticator.authenticate(f"Bearer {signed(EC_KEY, 'ES256', 'one')}")
    assert caught.value.retry_after_s
