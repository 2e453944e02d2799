"""
A link to a far server: passes bytes on to a port of this machine, each way as much later as given.

    python -m benchmarks.far PORT ONE_WAY_SECONDS

It prints its own port, and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_s: float) -> None:
    """Keep the order, and let any number of pieces be on their way at a time."""
    loop = asyncio.get_running_loop()
    under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def arrive() -> None:
        while True:
            due, piece = await under_way.get()
            await asyncio.sleep(due - loop.time())
            if not piece:
                writer.close()
                return
            writer.write(piece)

    arriving = asyncio.create_task(arrive())
    with contextlib.suppress(OSError):
        while piece := await reader.read(65536):
            under_way.put_nowait((loop.time() + delay_s, piece))
    under_way.put_nowait((loop.time() + delay_s, b""))
    await arriving


async def _main(port: int, delay_s: float) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(_pass_on(reader, far_writer, delay_s), _pass_on(far_reader, writer, delay_s))

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]), float(sys.argv[2])))
