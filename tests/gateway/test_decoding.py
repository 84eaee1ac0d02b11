"""Decoding users' pictures, a few at a time."""

import asyncio
import threading

from ourvidz_gateway.decoding import DECODERS, Decoder


async def test_decoding_that_is_given_up_makes_no_room_while_it_still_goes_on():
    begun, may_end = threading.Semaphore(0), threading.Event()
    going_on: list[bytes] = []

    def decode_slowly(data: bytes) -> bytes:
        going_on.append(data)
        begun.release()
        may_end.wait(30)
        going_on.remove(data)
        return data[::-1]

    decoder = Decoder()
    given_up = [asyncio.create_task(decoder.run(decode_slowly, b"first")) for _ in range(DECODERS)]
    for _ in given_up:
        assert await asyncio.to_thread(begun.acquire, timeout=30)
    for task in given_up:
        task.cancel()
    await asyncio.gather(*given_up, return_exceptions=True)

    others = [asyncio.create_task(decoder.run(decode_slowly, b"second")) for _ in range(3)]
    for _ in range(10):  # they get to where they wait, and whatever a thread could do for them is done before this is
        await asyncio.to_thread(str)

    assert going_on == [b"first"] * DECODERS
    may_end.set()
    assert await asyncio.gather(*others) == [b"dnoces"] * 3
    decoder.close()
