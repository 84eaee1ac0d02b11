"""A web server of somebody else's, on loopback, that answers what a test has written down, over HTTP or HTTPS."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from support.connections import answering

Page = bytes | Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass
class WebHost:
    """`pages` by path: all the bytes of an answer, or what writes them; `asked` are the requests' heads that came."""

    port: int = 0
    scheme: str = "http"
    name: str = "127.0.0.1"
    pages: dict[str, Page] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    @property
    def host(self) -> str:
        return f"{self.name}:{self.port}"

    def url(self, path: str = "/cat.png") -> str:
        return f"{self.scheme}://{self.host}{path}"


def page(body: bytes = b"", status: str = "200 OK", **headers: str) -> bytes:
    """An answer; a header's underscores are hyphens, and Content-Length is right unless it is given."""
    lines = {"Content-Length": str(len(body)), **{name.replace("_", "-"): value for name, value in headers.items()}}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + body


def redirect(location: str) -> bytes:
    return page(status="302 Found", Location=location)


@contextlib.asynccontextmanager
async def web_host(tls: ssl.SSLContext | None = None, name: str = "127.0.0.1") -> AsyncIterator[WebHost]:
    """Serve on 127.0.0.1 until the end of the block. `name` is what URLs call it."""
    host = WebHost(scheme="https" if tls else "http", name=name)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        host.asked.append(head)
        found = host.pages.get(head.split()[1], page(status="404 Not Found"))
        if isinstance(found, bytes):
            writer.write(found)
        else:
            await found(writer)
        await writer.drain()

    async with answering(answer, tls) as host.port:
        yield host


def certificate(folder: Path, *names: str) -> tuple[ssl.SSLContext, Path]:
    """A server's TLS context with a certificate of its own making for `names`, and the file that makes it trusted."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "tests")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    trusted, secret = folder / "trusted.pem", folder / "key.pem"
    trusted.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(trusted, secret)
    return context, trusted
