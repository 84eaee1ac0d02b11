"""What the guarded client fetches, and what it does not let itself be led to."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from ourvidz_gateway import guarded_http
from ourvidz_gateway.guarded_http import Answer, FetchError, GuardedClient, is_public
from support.receiver import DROP, HANG, receiver
from support.web_host import WebHost, certificate, page, redirect, web_host

LIMIT = 1000


@pytest.fixture
async def host() -> AsyncIterator[WebHost]:
    async with web_host() as host:
        yield host


def client(*hosts: str, **options) -> GuardedClient:
    return GuardedClient(hosts, setting="OURVIDZ_REFERENCE_HOSTS", **{"allow_private": True, **options})


async def fails(client: GuardedClient, url: str) -> str:
    with pytest.raises(FetchError) as caught:
        await client.fetch(url, max_bytes=LIMIT)
    return str(caught.value)


def resolver(*answers: list[str]):
    """A resolver that gives one answer after the other, and notes what it was asked."""
    left = list(answers)

    async def resolve(name: str, port: int) -> list[str]:
        resolve.asked.append((name, port))
        return left.pop(0)

    resolve.asked = []
    return resolve


async def test_a_file_is_fetched(host):
    host.pages["/a/cat.png?size=1"] = page(b"meow", Content_Type="text/plain")

    assert await client(host.host).fetch(host.url("/a/cat.png?size=1#top"), max_bytes=LIMIT) == b"meow"
    assert f"Host: {host.host}\r\n" in host.asked[0]
    assert "Cookie" not in host.asked[0]


async def test_a_loopback_address_is_refused(host):
    assert await fails(client("127.0.0.1", allow_private=False), "https://127.0.0.1/cat.png") == (
        "its host is not at a public address"
    )
    assert host.asked == []


async def test_plain_http_is_refused(host):
    says = await fails(client(host.host, allow_private=False), host.url())

    assert says.startswith("it must start with https://")
    assert host.asked == []


async def test_a_name_that_leads_to_loopback_is_refused():
    resolve = resolver(["127.0.0.1"])

    says = await fails(client("cats.example.com", allow_private=False, resolve=resolve), "https://cats.example.com/")

    assert says == "its host is not at a public address"
    assert resolve.asked == [("cats.example.com", 443)]


async def test_the_systems_resolver_finds_loopback_too():
    says = await fails(client("localhost", allow_private=False), "https://localhost/cat.png")

    assert says == "its host is not at a public address"


async def test_one_private_address_among_public_ones_is_enough_to_refuse():
    resolve = resolver(["8.8.8.8", "10.0.0.1"])

    says = await fails(client("cats.example.com", allow_private=False, resolve=resolve), "https://cats.example.com/")

    assert says == "its host is not at a public address"


async def test_what_was_checked_is_what_is_called(host):
    """The name resolves once; what it resolves to a moment later is not asked for."""
    resolve = resolver(["127.0.0.1"], ["127.0.0.2"])
    host.name = "cats.example.com"
    host.pages["/cat.png"] = page(b"meow")

    assert await client(host.host, resolve=resolve).fetch(host.url(), max_bytes=LIMIT) == b"meow"
    assert resolve.asked == [("cats.example.com", host.port)]
    assert f"Host: {host.host}\r\n" in host.asked[0]


@pytest.fixture
async def public_host(tmp_path, monkeypatch) -> AsyncIterator[WebHost]:
    """A host with HTTPS, and 127.0.0.1 in the place of a public address, which no test can call."""
    tls, trusted = certificate(tmp_path, "cats.example.com")
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    monkeypatch.setattr(guarded_http, "is_public", lambda address: address == "127.0.0.1" or is_public(address))
    async with web_host(tls, "cats.example.com") as host:
        yield host


async def test_a_name_that_changes_its_address_between_redirects_is_checked_again(public_host):
    resolve = resolver(["127.0.0.1"], ["127.0.0.2"])
    public_host.pages["/cat.png"] = redirect("/again.png")

    says = await fails(client(public_host.host, allow_private=False, resolve=resolve), public_host.url())

    assert says == "its host is not at a public address"
    assert len(public_host.asked) == 1


async def test_a_redirect_to_a_private_address_is_refused(public_host):
    """Also where its host is allowed."""
    resolve = resolver(["127.0.0.1"], ["169.254.169.254"])
    public_host.pages["/cat.png"] = redirect("https://metadata.example.com/latest")
    guarded = client(public_host.host, "metadata.example.com", allow_private=False, resolve=resolve)

    assert await fails(guarded, public_host.url()) == "its host is not at a public address"
    assert resolve.asked[-1] == ("metadata.example.com", 443)


async def test_a_redirect_from_https_to_plain_http_is_refused(public_host):
    public_host.pages["/cat.png"] = redirect(public_host.url().replace("https", "http"))
    guarded = client(public_host.host, allow_private=False, resolve=resolver(["127.0.0.1"]))

    assert (await fails(guarded, public_host.url())).startswith("it must start with https://")


async def test_the_next_address_is_tried_when_one_does_not_answer(host):
    host.name = "cats.example.com"
    host.pages["/cat.png"] = page(b"meow")
    guarded = client(host.host, resolve=resolver(["::1", "127.0.0.1"]))

    assert await guarded.fetch(host.url(), max_bytes=LIMIT) == b"meow"


async def test_a_host_that_nobody_knows():
    async def resolve(*_):
        raise OSError("Name or service not known")

    assert await fails(client("no.example", resolve=resolve), "https://no.example/") == "its host can't be found"


async def test_a_host_that_does_not_answer(host):
    assert await fails(client("127.0.0.1:1"), "http://127.0.0.1:1/") == "no safe connection to its host can be made"


async def test_https_is_checked_against_the_name_though_the_address_is_called(tmp_path, monkeypatch):
    tls, trusted = certificate(tmp_path, "cats.example.com")
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    async with web_host(tls, "cats.example.com") as host:
        host.pages["/cat.png"] = page(b"meow")

        async def resolve(*_):
            return ["127.0.0.1"]

        assert await client(host.host, resolve=resolve).fetch(host.url(), max_bytes=LIMIT) == b"meow"

        other = host.url().replace("cats", "dogs")
        says = await fails(client(host.host.replace("cats", "dogs"), resolve=resolve), other)
        assert says == "no safe connection to its host can be made"
        assert len(host.asked) == 1


async def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path):
    tls, _ = certificate(tmp_path, "localhost")
    async with web_host(tls, "localhost") as host:
        assert await fails(client(host.host), host.url()) == "no safe connection to its host can be made"
        assert host.asked == []


async def test_redirects_are_followed(host):
    host.pages |= {"/1": redirect("/2"), "/2": redirect("3"), "/3": redirect(host.url()), "/cat.png": page(b"meow")}

    assert await client(host.host).fetch(host.url("/1"), max_bytes=LIMIT) == b"meow"


async def test_a_fourth_redirect_is_too_many(host):
    host.pages |= {f"/{n}": redirect(f"/{n + 1}") for n in range(5)}

    assert await fails(client(host.host), host.url("/0")) == "it redirects more than 3 times"
    assert len(host.asked) == 4


@pytest.mark.parametrize(
    ("location", "says"),
    [
        ("http://evil.example/", "not allowed"),
        ("//evil.example/cat.png", "not allowed"),
        ("http://user@127.0.0.1/", "user name"),
        ("ftp://127.0.0.1/", "https://"),
        ("file:///etc/passwd", "https://"),
        ("http://[::1", "is broken"),
        ("http://127.0.0.1:port/", "is broken"),
        (f"http://127.0.0.1/{'a' * 2_048}", "at most 2,048"),
    ],
)
async def test_a_redirect_to_anything_else_is_refused(host, location, says):
    host.pages["/cat.png"] = redirect(location)

    assert says in await fails(client(host.host), host.url())


@pytest.mark.parametrize("status", ["404 Not Found", "500 Oops", "204 No Content", "206 Partial Content"])
async def test_any_other_status_is_an_error(host, status):
    host.pages["/cat.png"] = page(status=status)

    assert await fails(client(host.host), host.url()) == f"its server answers {status[:3]}"


async def test_a_redirect_to_nowhere_is_an_error(host):
    host.pages["/cat.png"] = page(status="302 Found")

    assert await fails(client(host.host), host.url()) == "its server answers 302"


async def test_a_file_of_exactly_the_limit_is_fetched(host):
    host.pages["/cat.png"] = page(b"x" * LIMIT)

    assert len(await client(host.host).fetch(host.url(), max_bytes=LIMIT)) == LIMIT


async def test_a_file_that_says_it_is_too_large_is_not_read(host):
    async def announce(writer):
        writer.write(page(Content_Length=str(LIMIT + 1)))
        await writer.drain()
        await asyncio.Event().wait()

    host.pages["/cat.png"] = announce

    assert "larger than" in await fails(client(host.host), host.url())


async def test_a_body_without_end_is_cut_off(host):
    async def pour(writer):
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"64\r\n" + b"x" * 100 + b"\r\n")
            await writer.drain()

    host.pages["/cat.png"] = pour

    assert "larger than" in await fails(client(host.host), host.url())


async def test_a_compressed_body_is_refused(host):
    host.pages["/cat.png"] = page(b"\x1f\x8b", Content_Encoding="gzip")

    assert await fails(client(host.host), host.url()) == "its server sends it compressed"
    assert "Accept-Encoding: identity\r\n" in host.asked[0]


async def test_a_body_that_is_cut_short_is_an_error(host):
    host.pages["/cat.png"] = page(b"meow", Content_Length="5")

    assert await fails(client(host.host), host.url()) == "the answer of its server is broken"


async def test_what_is_no_http_is_an_error(host):
    host.pages["/cat.png"] = b"SSH-2.0-OpenSSH_9.2\r\n\r\n"

    assert await fails(client(host.host), host.url()) == "the answer of its server is broken"


async def test_the_time_limit_is_for_all_of_it(host):
    """A server that sends a byte now and then never lets a timeout between two reads come up."""

    async def trickle(writer):
        writer.write(page(Content_Length="100"))
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)

    host.pages["/cat.png"] = trickle

    assert await fails(client(host.host, time_limit_s=0.3), host.url()) == "it took longer than 0.3 seconds"


async def test_proxy_variables_are_not_heeded(host, monkeypatch):
    host.pages["/cat.png"] = page(b"meow")
    for name in ("http_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")

    assert await client(host.host).fetch(host.url(), max_bytes=LIMIT) == b"meow"


class TestPost:
    """A body is sent by the same rules."""

    async def post(self, client: GuardedClient, url: str) -> Answer:
        return await client.post(url, b"meow", headers={"Content-Type": "text/plain"}, max_bytes=LIMIT)

    async def refused(self, client: GuardedClient, url: str) -> str:
        with pytest.raises(FetchError) as caught:
            await self.post(client, url)
        return str(caught.value)

    async def test_a_body_is_sent_and_any_status_is_an_answer(self):
        async with receiver(page(b"no", status="503 Busy", Retry_After="7")) as host:
            answer = await self.post(client(host.host), host.url)

        [received] = host.received
        assert answer == Answer(503, "7")
        assert received.body == "meow"
        assert (received.headers["content-type"], received.headers["host"]) == ("text/plain", host.host)

    async def test_a_redirect_is_not_followed(self):
        async with receiver() as elsewhere, receiver(redirect(elsewhere.url)) as host:
            answer = await self.post(client(host.host, elsewhere.host), host.url)

        assert answer.status == 302
        assert elsewhere.received == []

    async def test_what_was_checked_is_what_is_called(self):
        resolve = resolver(["127.0.0.1"], ["127.0.0.2"])
        async with receiver() as host:
            name = f"cats.example.com:{host.port}"
            answer = await self.post(client(name, resolve=resolve), f"http://{name}/")

        assert answer.status == 204
        assert host.received[0].headers["host"] == name

    async def test_a_private_address_a_foreign_host_and_plain_http_are_refused(self):
        async with receiver() as host:
            private = client(host.host, allow_private=False)
            assert await self.refused(private, f"https://{host.host}/") == "its host is not at a public address"
            assert (await self.refused(private, host.url)).startswith("it must start with https://")
            assert "not allowed" in await self.refused(client("cats.example.com"), host.url)

        assert host.received == []

    async def test_a_body_that_was_sent_is_not_sent_to_the_next_address(self):
        """Only where no connection comes about is another address tried: a body must not be sent twice unasked."""
        resolve = resolver(["127.0.0.1", "127.0.0.1"])
        async with receiver(DROP) as host:
            says = await self.refused(client(host.host, resolve=resolve), host.url)

        assert says == "the answer of its server is broken"
        assert len(host.received) == 1

    async def test_a_server_that_does_not_answer_in_time_is_left(self):
        async with receiver(HANG) as host:
            says = await self.refused(client(host.host, time_limit_s=0.3), host.url)

        assert says == "it took longer than 0.3 seconds"

    @pytest.mark.parametrize("announced", [10, LIMIT * 10], ids=["cut short", "too long"])
    async def test_an_answer_stands_whatever_becomes_of_its_body(self, announced):
        async with receiver(page(b"x" * (announced // 2), Content_Length=str(announced))) as host:
            answer = await self.post(client(host.host), host.url)

        assert answer.status == 200

    async def test_an_answer_stands_though_its_body_takes_longer_than_a_call_may(self, host, monkeypatch):
        async def stall(writer):
            writer.write(page(Content_Length="100"))
            await writer.drain()
            await asyncio.Event().wait()

        monkeypatch.setattr(guarded_http, "BODY_TIME_S", 0.6)
        host.pages["/cat.png"] = stall

        assert (await self.post(client(host.host, time_limit_s=0.3), host.url())).status == 200


@pytest.mark.parametrize(
    "address",
    [
        "8.8.8.8",
        "2606:4700::1111",
        "::ffff:8.8.8.8",
        "64:ff9b::808:808",
    ],
)
def test_public(address):
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",
        "127.0.0.1",
        "169.254.169.254",
        "172.16.0.1",
        "192.0.0.8",
        "192.0.2.1",
        "192.168.0.1",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::a00:1",
        "64:ff9b:1::808:808",
        "2001::1",
        "2001:db8::1",
        "2002:7f00:1::",
        "3fff::1",
        "fc00::1",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "ff0e::1",
        "localhost",
    ],
)
def test_not_public(address):
    assert not is_public(address)
