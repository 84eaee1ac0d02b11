"""Print the page of all settings, from the classes that read them: `make_settings_page.py > docs/settings.md`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic_core import to_json
from pydantic_settings import BaseSettings

from ourvidz.client import DEFAULT_ADDRESS, DEFAULT_URL
from ourvidz_enhancer.settings import EnhancerSettings
from ourvidz_gateway.settings import GatewaySettings
from ourvidz_sdxl.settings import SdxlSettings
from ourvidz_serving.rendering.renderer import RenderSettings
from ourvidz_serving.settings import SHARED, SHARED_PREFIX, ServerSettings, variable_of
from ourvidz_serving.storage import StorageSettings
from ourvidz_wan.settings import WanSettings

INTRODUCTION = """\
# Settings

Servers read their settings from the environment, once, when they start. A missing or bad value stops the start, and the
message names the variable. `ourvidz up` passes its own environment on to the servers that it starts, and sets over it
what has to fit together: addresses, ports, the database, secrets and storage.

This page is written by `python scripts/make_settings_page.py > docs/settings.md`, from the classes that read the
variables; a test fails when the two differ.
"""

ALL_SERVERS = f"""\
## All servers

A server may have a value of its own: `OURVIDZ_SDXL_LOG_LEVEL` wins over `{SHARED_PREFIX}LOG_LEVEL` in the SDXL server.
"""

GATEWAY = """\
## Gateway

`python -m ourvidz_gateway`. It needs the storage settings, too. Exactly one of `OURVIDZ_JWT_SECRET` and
`OURVIDZ_JWKS_URL` must be set.
"""

SDXL = """\
## SDXL renderer

`python -m ourvidz_sdxl`. It needs the storage settings, too. Models from the Hub are kept and fetched as the Hub's own
variables say (`HF_HOME`, `HF_HUB_OFFLINE`, `HF_TOKEN`).
"""

WAN = """\
## WAN renderer

`python -m ourvidz_wan`. It needs the storage settings, too.
"""

ENHANCER = """\
## Enhancer

`python -m ourvidz_enhancer`. It needs no storage.
"""

RENDER = """\
## Every renderer
"""

STORAGE = """\
## Storage

Read by the gateway, which signs URLs, and by the renderers, which write outputs: give all of them the same store. A
folder (`local`) needs `PATH`, and in the gateway `PUBLIC_URL` and `SIGNING_SECRET`; an S3 server (`s3`) needs
`ENDPOINT`, `ACCESS_KEY` and `SECRET_KEY`.
"""

CLIENT = f"""\
## Client and command line

| variable | default | meaning |
|---|---|---|
| `OURVIDZ_TOKEN` | | The caller's JWT. |
| `OURVIDZ_GRPC` | `{DEFAULT_ADDRESS}` | Address of the gateway's gRPC API. |
| `OURVIDZ_URL` | `{DEFAULT_URL}` | Where asset URLs without a host are looked for. |
| `OURVIDZ_DATA_DIR` | `ourvidz` in `XDG_DATA_HOME` or `~/.local/share` | The data folder of `ourvidz up` and `ourvidz token`. |
"""


def page() -> str:
    """Return the whole page."""
    return "\n".join(
        [
            INTRODUCTION,
            ALL_SERVERS,
            *_table(ServerSettings, [name for name in ServerSettings.model_fields if name in SHARED]),
            GATEWAY,
            *_table(GatewaySettings, _own(GatewaySettings)),
            SDXL,
            *_table(SdxlSettings, _own(SdxlSettings)),
            WAN,
            *_table(WanSettings, _own(WanSettings)),
            ENHANCER,
            *_table(EnhancerSettings, _own(EnhancerSettings)),
            RENDER,
            *_table(RenderSettings, RenderSettings.model_fields),
            STORAGE,
            *_table(StorageSettings, StorageSettings.model_fields),
            CLIENT,
        ]
    )


def _own(settings_class: type[ServerSettings]) -> list[str]:
    return [name for name in settings_class.model_fields if name not in SHARED]


def _table(settings_class: type[BaseSettings], names: Iterable[str]) -> Iterator[str]:
    yield "| variable | default | meaning |"
    yield "|---|---|---|"
    for name in names:
        field = settings_class.model_fields[name]
        default = "required" if field.is_required() else _value(field.get_default(call_default_factory=True))
        meaning = _description(settings_class, name)
        example = _value(field.examples[0]) if field.examples else ""
        if example not in ("", default):
            meaning += f" Example: {example}"
        yield f"| `{variable_of(settings_class, name)}` | {default} | {meaning} |"
    yield ""


def _description(settings_class: type[BaseSettings], name: str) -> str:
    """Return what a field is for; a class that only changes a default leaves that to its base."""
    bases = [base for base in settings_class.__mro__ if issubclass(base, BaseSettings) and name in base.model_fields]
    return next(text for base in bases if (text := base.model_fields[name].description))


def _value(value: object) -> str:
    """Return a value as it stands in a variable; nothing for none."""
    if value is None or value == ():
        return ""
    if isinstance(value, Path):
        value = str(value).replace(str(Path.home()), "~")
    if isinstance(value, float):
        value = f"{value:g}"
    if isinstance(value, tuple):
        value = ",".join(str(item) for item in value)
    text = value if isinstance(value, str) else to_json(value).decode().strip('"')
    return f"`{text}`"


if __name__ == "__main__":
    # What this machine sets is nobody's default.
    for variable in [name for name in os.environ if name.startswith(SHARED_PREFIX) or name == "XDG_CACHE_HOME"]:
        del os.environ[variable]
    sys.stdout.write(page())
