"""A TCP proxy that can be cut, stalled or slowed, so that a server seems away while its memory survives."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from typing import Any

from camlink.pipeline.testbed import free_port

CHUNK = 65_536


class Proxy:
    """Forwards ``port`` of loopback to another port. Use as a context manager; its loop runs in a thread of its own.

    ``cut``: connections are reset and new ones refused, as when a host has gone. ``stall``: connections stand and
    nothing passes, as when a network drops packets. ``slow``: every chunk waits, and bytes pass at a bounded rate.
    """

    def __init__(self, target_port: int | None = None) -> None:
        """``target_port`` may be set later, for a server that must know this proxy's port before it starts."""
        self.port = free_port()
        self.target_port = target_port
        self._delay_s = 0.0
        self._bytes_per_s = float("inf")
        self._passing = threading.Event()
        self._passing.set()
        self._connections: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Proxy:
        self._thread.start()
        self._call(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def cut(self) -> None:
        """Reset all connections and refuse new ones."""
        self._call(self._close())

    def stall(self) -> None:
        """Let nothing pass; connections stand, and new ones are accepted."""
        self._passing.clear()

    def slow(self, delay_s: float, bytes_per_s: float) -> None:
        """Let every chunk wait ``delay_s``, then take its time at ``bytes_per_s``, in both directions."""
        self._delay_s, self._bytes_per_s = delay_s, bytes_per_s

    def heal(self) -> None:
        """Pass everything again, at full speed."""
        self._delay_s, self._bytes_per_s = 0.0, float("inf")
        self._passing.set()
        if self._server is None:
            self._call(self._listen())

    def _call(self, action: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(action, self._loop).result(30)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def _close(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for writer in list(self._connections):
            writer.transport.abort()
        while asyncio.all_tasks(self._loop) - {asyncio.current_task()} and self._connections:
            await asyncio.sleep(0.01)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert self.target_port is not None
        try:
            with self._listed(writer):
                upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", self.target_port)
                with self._listed(upstream_writer):
                    pumps = (self._pump(reader, upstream_writer), self._pump(upstream_reader, writer))
                    tasks = [asyncio.ensure_future(pump) for pump in pumps]
                    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                    for task in tasks:
                        task.cancel()
                    await asyncio.gather(*tasks, return_exceptions=True)
        except OSError:
            return  # the server behind is away: who asked sees the connection end

    @contextlib.contextmanager
    def _listed(self, writer: asyncio.StreamWriter) -> Any:
        self._connections.add(writer)
        try:
            yield
        finally:
            self._connections.discard(writer)
            writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK):
            while not self._passing.is_set():
                await asyncio.sleep(0.02)
            pause_s = self._delay_s + len(data) / self._bytes_per_s
            if pause_s > 0:
                await asyncio.sleep(pause_s)
            writer.write(data)
            await writer.drain()
