"""A small RTSP camera for tests, on a free port of loopback, that misbehaves on request.

    with RtspServer(moving_picture()) as server:
        open_source(SourceSpec("hall", (server.url,)), live=True)
        server.behave("hang")                 # see `Behaviour`
        server.drop_connections()             # as a pulled plug does

It speaks what cameras speak and no more: RTSP 1.0 with RTP interleaved in its TCP connection (RFC 2326, section 10.12),
H.264 in single NAL units and FU-A fragments (RFC 6184), Basic and Digest passwords (RFC 7617, RFC 2617). Needs PyAV to
encode. No part of camlink that runs at a site imports this.
"""

from __future__ import annotations

import contextlib
import random
import secrets
import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Literal, Self

from camlink.pipeline.errors import CamlinkError
from camlink.pipeline.testbed.h264 import AccessUnit, moving_picture, parameter_sets, recorded
from camlink.pipeline.testbed.rtsp_auth import Credentials

__all__ = ["Behaviour", "Credentials", "RtspServer", "moving_picture", "recorded"]

Behaviour = Literal["play", "freeze", "hang", "trickle", "slow", "garbage", "corrupt"]
"""play: as a camera should. freeze: the same picture for ever. hang: not a byte more. trickle: a byte now and then, so
that no picture is ever whole. slow: a picture every `SLOW_S`. garbage: bytes that are no RTP. corrupt: RTP whose
pictures are noise."""

SLOW_S = 2.0
TRICKLE_S = 0.2
CLOCK_HZ = 90_000
PAYLOAD_MOST = 1400
PAYLOAD_TYPE = 96
FU_A = 28


class RtspServer:
    """Serves one stream to any number of clients, each on a thread of its own, until closed."""

    def __init__(
        self,
        units: Sequence[AccessUnit],
        fps: float = 25.0,
        credentials: Credentials | None = None,
        seed: int = 0,
    ) -> None:
        """``units``: pictures, the first a key frame, played in a loop. Raises `CamlinkError` if there are none."""
        if not units or not units[0].is_key:
            raise CamlinkError("an RTSP test stream needs pictures of which the first is a key frame")
        self.fps = fps
        self.connections = 0  # ever accepted
        self.units = list(units)
        self._credentials = credentials
        self._behaviour: Behaviour = "play"
        self._random = random.Random(seed)
        self._clients: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener: socket.socket | None = None
        self.port = 0
        self.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The address, without a password."""
        return f"rtsp://127.0.0.1:{self.port}/stream"

    def url_as(self, user: str, password: str) -> str:
        """Return the address with a user and a password in it, which must need no encoding."""
        return f"rtsp://{user}:{password}@127.0.0.1:{self.port}/stream"

    def behave(self, behaviour: Behaviour) -> None:
        """Take up another behaviour, towards all clients, from the next picture on."""
        self._behaviour = behaviour

    def play(self, units: Sequence[AccessUnit]) -> None:
        """Go on with other pictures, of another resolution if need be, in the same connections."""
        self.units = list(units)

    def drop_connections(self) -> None:
        """Reset all connections (TCP RST), as a router that forgot them does."""
        for client in self._copied_clients():
            with contextlib.suppress(OSError):  # it may have gone by itself
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.shutdown(socket.SHUT_RD)
                client.close()

    def start(self) -> None:
        """Listen, on the port of before if there was one."""
        if self._listener is not None:
            return
        listener = socket.create_server(("127.0.0.1", self.port))
        self.port = listener.getsockname()[1]
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def stop(self) -> None:
        """Refuse connections from now on and end those there are; `start` brings the camera back."""
        if self._listener is not None:
            listener, self._listener = self._listener, None
            with contextlib.suppress(OSError):  # wakes the thread that accepts
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        self.drop_connections()

    def _copied_clients(self) -> list[socket.socket]:
        with self._lock:
            return list(self._clients)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:  # closed by `stop`
                return
            with self._lock:
                self._clients.add(client)
                self.connections += 1
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            _Session(self, client, self._credentials).run()
        except OSError:  # the client went, or `drop_connections` cut it off
            return
        finally:
            with self._lock:
                self._clients.discard(client)
            client.close()

    def packets(self, sender: RtpSender) -> Iterator[tuple[bytes, float]]:
        """Yield what to send to a client, and how long to wait after it."""
        place, shown = 0, self.units
        while True:
            if shown is not self.units:
                place, shown = 0, self.units
            behaviour = self._behaviour
            if behaviour == "hang":
                yield b"", TRICKLE_S
            elif behaviour == "trickle":
                yield b"$", TRICKLE_S
            elif behaviour == "garbage":
                yield self._random.randbytes(2000), 1 / self.fps
            else:
                unit = shown[0] if behaviour == "freeze" else shown[place % len(shown)]
                sent = sender.packets(self._noise(unit) if behaviour == "corrupt" else unit.nals)
                yield sent, SLOW_S if behaviour == "slow" else 1 / self.fps
                place += 1

    def _noise(self, unit: AccessUnit) -> list[bytes]:
        """Return the picture's units with their headers kept and all else random."""
        return [nal[:1] + self._random.randbytes(max(8, len(nal) - 1)) for nal in unit.nals if nal[0] & 31 in (1, 5)]


class RtpSender:
    """Packs pictures into RTP packets, interleaved for channel 0 of an RTSP connection."""

    def __init__(self, fps: float) -> None:
        self._step = round(CLOCK_HZ / fps)
        self._timestamp = 0
        self._sequence = 0
        self._source = secrets.randbits(32)

    def packets(self, nals: Sequence[bytes]) -> bytes:
        """Return the packets of one picture's NAL units, the last one marked."""
        payloads = [payload for nal in nals for payload in _fragments(nal)]
        out = bytearray()
        for number, payload in enumerate(payloads):
            marker = 0x80 if number == len(payloads) - 1 else 0
            self._sequence = (self._sequence + 1) & 0xFFFF
            header = struct.pack(
                "!BBHII", 0x80, marker | PAYLOAD_TYPE, self._sequence, self._timestamp & 0xFFFFFFFF, self._source
            )
            out += struct.pack("!cBH", b"$", 0, len(header) + len(payload)) + header + payload
        self._timestamp += self._step
        return bytes(out)


def _fragments(nal: bytes) -> Iterator[bytes]:
    """Yield a NAL unit as it is, or in FU-A fragments where it would not fit a packet (RFC 6184, section 5.8)."""
    if len(nal) <= PAYLOAD_MOST:
        yield nal
        return
    indicator, kind = (nal[0] & 0xE0) | FU_A, nal[0] & 31
    body = nal[1:]
    for start in range(0, len(body), PAYLOAD_MOST - 2):
        part = body[start : start + PAYLOAD_MOST - 2]
        first = 0x80 if start == 0 else 0
        last = 0x40 if start + len(part) == len(body) else 0
        yield bytes((indicator, first | last | kind)) + part


class _Session:
    """One client's conversation: requests until PLAY, then pictures, with requests in between."""

    def __init__(self, server: RtspServer, client: socket.socket, credentials: Credentials | None) -> None:
        self._server, self._client, self._credentials = server, client, credentials
        self._buffer = b""
        self._id = secrets.token_hex(4)

    def run(self) -> None:
        while True:
            request = self._request()
            if request is None or not self._answer(*request):
                return
            if request[0] == "PLAY" and self._is_allowed(*request):
                self._play()
                return

    def _request(self) -> tuple[str, str, dict[str, str]] | None:
        while b"\r\n\r\n" not in self._buffer:
            received = self._client.recv(4096)
            if not received:
                return None
            self._buffer += received
            while self._buffer[:1] == b"$" and len(self._buffer) >= 4:  # RTCP of the client
                length = 4 + int.from_bytes(self._buffer[2:4], "big")
                if len(self._buffer) < length:
                    break
                self._buffer = self._buffer[length:]
        head, self._buffer = self._buffer.split(b"\r\n\r\n", 1)
        first, *lines = head.decode("utf-8", errors="replace").split("\r\n")
        method, url = (*first.split(" "), "")[:2]
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return method, url, headers

    def _is_allowed(self, method: str, url: str, headers: dict[str, str]) -> bool:
        return (
            self._credentials is None
            or method == "OPTIONS"
            or self._credentials.allow(method, url, headers.get("authorization", ""))
        )

    def _answer(self, method: str, url: str, headers: dict[str, str]) -> bool:
        """Answer one request; return whether the conversation goes on."""
        if not self._is_allowed(method, url, headers):
            assert self._credentials is not None
            self._reply(headers, "401 Unauthorized", {"WWW-Authenticate": self._credentials.challenge()})
        elif method == "OPTIONS":
            self._reply(headers, "200 OK", {"Public": "OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN, GET_PARAMETER"})
        elif method == "DESCRIBE":
            described = {"Content-Type": "application/sdp", "Content-Base": f"{self._server.url}/"}
            self._reply(headers, "200 OK", described, self._description())
        elif method == "SETUP" and "TCP" not in headers.get("transport", ""):
            self._reply(headers, "461 Unsupported Transport")
        elif method == "SETUP":
            self._reply(headers, "200 OK", {"Transport": "RTP/AVP/TCP;unicast;interleaved=0-1", "Session": self._id})
        elif method in ("PLAY", "GET_PARAMETER", "SET_PARAMETER"):
            self._reply(headers, "200 OK", {"Session": self._id})
        elif method == "TEARDOWN":
            self._reply(headers, "200 OK")
            return False
        else:
            self._reply(headers, "501 Not Implemented")
        return True

    def _reply(self, request: dict[str, str], status: str, more: dict[str, str] | None = None, body: str = "") -> None:
        headers = {"CSeq": request.get("cseq", "0"), **(more or {})}
        if body:
            headers["Content-Length"] = str(len(body.encode()))
        lines = [f"RTSP/1.0 {status}", *(f"{name}: {value}" for name, value in headers.items()), "", body]
        self._client.sendall("\r\n".join(lines).encode())

    def _description(self) -> str:
        sets = parameter_sets(self._server.units[0])
        return "\r\n".join(
            [
                "v=0",
                "o=- 0 0 IN IP4 127.0.0.1",
                "s=camlink test stream",
                "c=IN IP4 0.0.0.0",
                "t=0 0",
                f"m=video 0 RTP/AVP {PAYLOAD_TYPE}",
                f"a=rtpmap:{PAYLOAD_TYPE} H264/{CLOCK_HZ}",
                f"a=fmtp:{PAYLOAD_TYPE} packetization-mode=1;sprop-parameter-sets={sets}",
                "a=control:track1",
                "",
            ]
        )

    def _play(self) -> None:
        ended = threading.Event()
        threading.Thread(target=self._listen, args=(ended,), daemon=True).start()
        due = time.monotonic()
        for packets, pause_s in self._server.packets(RtpSender(self._server.fps)):
            if packets:
                self._client.sendall(packets)
            due = max(due + pause_s, time.monotonic() - 0.5)  # after a stall it does not hurry for long
            if ended.wait(max(0.0, due - time.monotonic())):
                return

    def _listen(self, ended: threading.Event) -> None:
        """Answer what the client says while it is sent pictures, until it leaves."""
        with contextlib.suppress(OSError):  # the connection was cut
            while True:
                request = self._request()
                if request is None or not self._answer(*request):
                    break
        ended.set()
