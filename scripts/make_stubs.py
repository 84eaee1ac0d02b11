"""Write the Python stubs of all contracts anew: `python scripts/make_stubs.py`.

Everything under `sdk/ourvidz/api` is wiped first, so that a contract that was removed leaves nothing behind. The same
contracts and the same generator versions always give the same bytes.
"""

from __future__ import annotations

import shutil
import sys
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
SDK = ROOT / "sdk"
STUBS = SDK / "ourvidz" / "api"


def main() -> int:
    """Wipe the old stubs and run protoc once over all contracts; return its exit code."""
    contracts = sorted(path.relative_to(PROTOS).as_posix() for path in PROTOS.rglob("*.proto"))
    shutil.rmtree(STUBS, ignore_errors=True)
    # protoc finds its plugins on PATH, where they need not be: they lie beside the interpreter that runs this.
    plugins = {name: Path(sys.executable).with_name(name) for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")}
    code: int = protoc.main(
        [
            "protoc",
            f"--proto_path={PROTOS}",
            f"--proto_path={files('grpc_tools') / '_proto'}",
            *(f"--plugin={name}={path}" for name, path in plugins.items()),
            f"--python_out={SDK}",
            f"--grpc_python_out={SDK}",
            f"--mypy_out=quiet:{SDK}",
            # Stubs for both kinds of channel: our servers use grpc.aio, the client and its users may use either.
            f"--mypy_grpc_out=quiet:{SDK}",
            *contracts,
        ]
    )
    return code


if __name__ == "__main__":
    sys.exit(main())
