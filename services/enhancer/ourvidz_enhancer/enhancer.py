"""The enhancer: a server with one engine behind it."""

from __future__ import annotations

from ourvidz.api.enhance.v1 import enhance_pb2_grpc
from ourvidz_enhancer.instruction import Instruction
from ourvidz_enhancer.servicer import EnhanceServicer
from ourvidz_enhancer.settings import EnhancerSettings
from ourvidz_enhancer.task import EnhancerInfo
from ourvidz_serving.engines.process import EngineProcess, EngineState
from ourvidz_serving.server import Server

SERVICE = "ourvidz.api.enhance.v1.EnhanceService"

_WAIT_SHARE = 0.8
"""How much of the drain's grace a text may take to end by itself; in the rest it is stopped and says so."""


def make_engine(settings: EnhancerSettings, instruction: Instruction) -> EngineProcess[EnhancerInfo]:
    """Return the engine process, not started yet."""
    config = {**settings.engine_config(), "instruction": instruction.model_dump()}
    return EngineProcess("ourvidz_enhancer.engine:EnhancerEngine", config)


async def serve_enhancer(settings: EnhancerSettings, engine: EngineProcess[EnhancerInfo]) -> None:
    """Serve an engine until the process is told to stop; starts and stops the engine, too.

    Health says SERVING while the model is loaded. Raises `SettingsError` and `StartError`.
    """
    server = Server(settings, name="enhancer", require_service_token=True)
    servicer = EnhanceServicer(engine, registry=server.registry)
    enhance_pb2_grpc.add_EnhanceServiceServicer_to_server(servicer, server.grpc)
    server.add_service(SERVICE)
    engine.on_change(lambda: server.set_serving(SERVICE, engine.state is EngineState.READY))
    server.on_drain(lambda: servicer.drain(_WAIT_SHARE * settings.drain_grace_s))
    try:
        await engine.start()
        await server.run()
    finally:
        await engine.stop()
