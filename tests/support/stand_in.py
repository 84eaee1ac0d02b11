"""Small programs that stand in for servers: they tell the test what happens to them, over a socket.

The end of a program's connection is the end of all its processes, however they ended.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from ourvidz.local.supervisor import Program

TELL = """
import os, signal, socket, sys, time
test = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
def tell(word):
    test.sendall(f"{sys.argv[2]} {word} {os.getpid()}\\n".encode())
"""

WAITS = "tell('up')\nsignal.pause()\n"
ENDS_WELL = "signal.signal(signal.SIGTERM, lambda *_: (tell('term'), os._exit(0)))\n" + WAITS
WILL_NOT_END = "signal.signal(signal.SIGTERM, lambda *_: tell('term'))\ntell('up')\nwhile True: signal.pause()\n"
ENDS_WITH_STDIN = "tell('up')\nos.read(0, 1)\ntell('eof')\n"
LEAVES_A_CHILD = "os.set_inheritable(test.fileno(), True)\nif os.fork() == 0: signal.pause()\n" + ENDS_WELL


class StandIns:
    """What the programs tell, in order: `(name, word, pid)`; the word is `gone` when a connection ends."""

    def __init__(self, port: int, folder: Path) -> None:
        self.told: asyncio.Queue[tuple[str, str, int]] = asyncio.Queue()
        self.up: dict[int, asyncio.Event] = {}
        self.port = port
        self._folder = folder

    def program(self, name: str, does: str, **fields) -> Program:
        async def healthy(pid: int) -> None:
            await self.up.setdefault(pid, asyncio.Event()).wait()

        return Program(
            name=name,
            command=(sys.executable, "-c", TELL + does, str(self.port), name),
            log=self._folder / f"{name}.log",
            **{"healthy": healthy, **fields},
        )

    async def next(self, name: str, word: str) -> int:
        """Wait for what is told next, which must be this; return the process id."""
        said = await asyncio.wait_for(self.told.get(), 30)
        assert said[:2] == (name, word)
        return said[2]

    async def listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        name, pid = "", 0
        while line := await reader.readline():
            name, word, number = line.decode().split()
            pid = int(number)
            self.told.put_nowait((name, word, pid))
            if word == "up":
                self.up.setdefault(pid, asyncio.Event()).set()
        self.told.put_nowait((name, "gone", pid))
        writer.close()


@asynccontextmanager
async def stand_ins(folder: Path) -> AsyncIterator[StandIns]:
    """Listen to stand-ins until the end of the block."""
    programs: list[StandIns] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await programs[0].listen(reader, writer)

    async with await asyncio.start_server(listen, "127.0.0.1", 0) as server:
        programs.append(StandIns(server.sockets[0].getsockname()[1], folder))
        yield programs[0]
