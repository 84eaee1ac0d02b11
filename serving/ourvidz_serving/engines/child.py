"""The engine process: what runs in the child that a server spawns for its engine.

`python -m ourvidz_serving.engines.child FD` speaks over the socket FD. It ends by itself when the server's end
closes, however the server ended, so that no engine ever outlives its server.
"""

from __future__ import annotations

import importlib
import os
import queue
import signal
import socket
import sys
import threading
import traceback
from dataclasses import dataclass, field

from ourvidz_serving.engines.channel import BlockingChannel, StartEngine, StartTask, StopTask
from ourvidz_serving.engines.engine import (
    Engine,
    EngineFactory,
    EngineOutOfMemory,
    InvalidForEngine,
    Loaded,
    LoadFailed,
    LoadSession,
    ModelUnavailable,
    Task,
    TaskCancelled,
    TaskCancelledEvent,
    TaskDone,
    TaskFailed,
)


@dataclass(frozen=True, slots=True)
class _Order:
    """A task that was asked for, with the flag that stops it."""

    task: Task
    cancel: threading.Event = field(default_factory=threading.Event)


def run(end: socket.socket) -> None:
    """Load the engine and do what the server asks for, until the server closes its end or loading fails."""
    channel = BlockingChannel(end)
    start: StartEngine = channel.receive()
    sys.path[:] = start.module_path
    orders: queue.SimpleQueue[_Order] = queue.SimpleQueue()
    # It must run while the engine loads and works: cancelling and the server's end both arrive here.
    threading.Thread(target=_listen, args=(channel, orders), name="engine-orders", daemon=True).start()

    engine = _load(start, channel)
    while engine is not None:
        _work(engine, orders.get(), channel)


def _listen(channel: BlockingChannel, orders: queue.SimpleQueue[_Order]) -> None:
    """Take the server's messages; end the process when there will be no more."""
    running: _Order | None = None
    try:
        while True:
            message = channel.receive()
            if isinstance(message, StartTask):
                running = _Order(message.task)
                orders.put(running)
            elif isinstance(message, StopTask) and running is not None:
                running.cancel.set()
    except (EOFError, OSError):
        # Nothing here is worth saving and the engine's thread may be deep in a kernel, so we don't unwind it.
        os._exit(0)


def _load(start: StartEngine, channel: BlockingChannel) -> Engine | None:
    """Make and load the engine and say how it went; None when it can't be."""
    try:
        module, _, name = start.factory.partition(":")
        factory: EngineFactory = getattr(importlib.import_module(module), name)
        engine = factory(start.config)
        info = engine.load(LoadSession(channel.send))
    except ModelUnavailable as error:
        channel.send(LoadFailed(str(error)))
        return None
    except Exception as error:  # noqa: BLE001 - whatever it is, the server must learn of it and logs it
        channel.send(LoadFailed(_describe(error), traceback.format_exc()))
        return None
    channel.send(Loaded(info))
    return engine


def _work(engine: Engine, order: _Order, channel: BlockingChannel) -> None:
    """Do one task and say how it ended."""
    try:
        engine.run(order.task, order.task.open_session(channel.send, order.cancel))
    except TaskCancelled:
        channel.send(TaskCancelledEvent())
    except InvalidForEngine as error:
        channel.send(TaskFailed("invalid_request", str(error)))
    except (EngineOutOfMemory, MemoryError) as error:
        channel.send(TaskFailed("out_of_memory", str(error) or "memory ran out", traceback.format_exc()))
    except Exception as error:  # noqa: BLE001 - whatever it is, the server must learn of it and logs it
        channel.send(TaskFailed("engine_failed", _describe(error), traceback.format_exc()))
    else:
        channel.send(TaskDone())


def _describe(error: Exception) -> str:
    """One line for people: the error's type and the first line of its text."""
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def main() -> None:
    """Run over the socket whose number is the first argument."""
    # The server decides when its engine ends: a signal for the whole group must not cost it a running task.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        end = socket.socket(fileno=int(sys.argv[1]))
        # A process that outlives us must not keep the channel open.
        end.set_inheritable(False)
        run(end)
    except (EOFError, OSError):
        # The server is gone: there is nobody to tell.
        sys.exit(0)


if __name__ == "__main__":
    main()
