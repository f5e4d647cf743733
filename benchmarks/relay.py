"""A link between two peer connections in user space: two UDP sockets and rewritten candidates. Needs no root.

Each peer is told one candidate of the other: the relay's socket that faces it. `connect` does so for two peers of
this process, `WhipProxy` for programs: it stands in front of a WHIP endpoint (RFC 9725).
"""

from __future__ import annotations

import asyncio
import heapq
import ipaddress
import time
from collections.abc import Callable
from itertools import count
from typing import cast

import aiohttp
from aiohttp import web
from aiortc import RTCPeerConnection, RTCSessionDescription
from yarl import URL

from benchmarks.link import Link, LinkSpec
from shared.errors import SemcallError
from shared.signalling_offer import CANDIDATE, usable

Address = tuple[str, int]
_HEADERS = {4: 28, 6: 48}  # bytes of IP and UDP around every datagram
_PASSED_ON = ("Content-Type", "ETag", "Accept-Patch", "Link", "Retry-After", "WWW-Authenticate")


def is_media(datagram: bytes) -> bool:
    """Whether it is RTP: by its first byte (RFC 7983) and, against RTCP, its payload type (RFC 5761 section 4)."""
    return len(datagram) > 12 and 128 <= datagram[0] <= 191 and not 64 <= datagram[1] & 0x7F <= 95


def candidate_of(text: str) -> Address | None:
    """The first candidate of a session description that is of use here, IPv4 before IPv6."""
    found = []
    for line in text.splitlines():
        if line.startswith(CANDIDATE) and usable(line):
            parts = line.split()
            found.append((parts[4], int(parts[5])))
    return min(found, key=lambda address: ipaddress.ip_address(address[0]).version, default=None)


def with_candidate(text: str, address: Address) -> str:
    """A session description whose only candidate, in every section, is `address`."""
    lines = [line for line in text.splitlines() if not line.startswith((CANDIDATE, "a=end-of-candidates"))]
    host, port = address
    ours = f"{CANDIDATE}1 1 udp 2130706431 {host} {port} typ host"
    out: list[str] = []
    for line in lines:
        out.append(line)
        if line.startswith("a=ice-ufrag:"):  # each section has one (RFC 8839 section 5.4)
            out += [ours, "a=end-of-candidates"]
    return "\r\n".join(out) + "\r\n"


class _Facing(asyncio.DatagramProtocol):
    """The socket that one peer sees as the other."""

    def __init__(self, arrived: Callable[[bytes], None]) -> None:
        self._arrived = arrived
        self.peer: Address | None = None
        """Whom it speaks to; without one, the first that speaks to it. Other sockets of a peer are not heard."""
        self.transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)  # Python 3.11's own is no subclass of it

    def datagram_received(self, data: bytes, address: tuple[str | int, ...]) -> None:
        source = str(address[0]), int(address[1])
        if self.peer is None:
            self.peer = source
        if source == self.peer:
            self._arrived(data)

    def send(self, data: bytes) -> None:
        if self.peer is not None and not self.transport.is_closing():
            self.transport.sendto(data, self.peer)


class Lane:
    """One direction under way: what the link lets through, sent when it leaves."""

    def __init__(self, link: Link, send: Callable[[bytes], None]) -> None:
        self._link, self._send = link, send
        self._loop = asyncio.get_running_loop()
        self._waiting: list[tuple[float, int, bytes]] = []
        self._numbers = count()  # of two that leave at once, the first to come is the first to go
        self._timer: asyncio.TimerHandle | None = None

    def push(self, data: bytes, size: int, media: bool) -> None:
        """`data` comes; `size`: bytes that it takes on the link; `media`: see `Link.push`."""
        out = self._link.push(self._loop.time(), size, media)
        if out is not None:
            heapq.heappush(self._waiting, (out, next(self._numbers), data))
            self._flush()

    def close(self) -> None:
        """Send nothing any more."""
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        while self._waiting and self._waiting[0][0] <= (now := self._loop.time()):
            due, _, data = heapq.heappop(self._waiting)
            self._send(data)
            if self._link.begun:
                self._link.counts.late.append(now - due)
        self._timer = self._loop.call_at(self._waiting[0][0], self._flush) if self._waiting else None


class Relay:
    """Carries one call between a caller and a callee, `forward` from caller to callee, `back` the other way.

    `offer` and `answer` rewrite their session descriptions and must be called in this order. Both links' clocks
    begin with the first RTP packet of either. Belongs to the event loop.
    """

    def __init__(self, forward: LinkSpec = LinkSpec(), back: LinkSpec = LinkSpec()) -> None:  # noqa: B008 (frozen)
        self.forward, self.back = Link(forward), Link(back)
        self.began: float | None = None
        """Unix time of the first RTP packet."""
        self._caller: _Facing | None = None
        self._callee: _Facing | None = None
        self._lanes: list[Lane] = []

    async def offer(self, text: str) -> str:
        """The caller's offer as the callee must see it. Raises SemcallError without a candidate of this machine."""
        address = candidate_of(text)
        if address is None:
            raise SemcallError("The offer has no candidate to relay: gather candidates before it is sent.")
        headers = _HEADERS[ipaddress.ip_address(address[0]).version]
        caller = _Facing(lambda data: self._pass(to_callee, self.forward, data, headers))
        callee = _Facing(lambda data: self._pass(to_caller, self.back, data, headers))
        to_callee, to_caller = Lane(self.forward, callee.send), Lane(self.back, caller.send)
        loop = asyncio.get_running_loop()
        try:
            await loop.create_datagram_endpoint(lambda: caller, local_addr=(address[0], 0))
            await loop.create_datagram_endpoint(lambda: callee, local_addr=(address[0], 0))
        except OSError as error:
            raise SemcallError(f"{address[0]} is no address of this machine: both peers must run here.") from error
        caller.peer, self._caller, self._callee = address, caller, callee
        self._lanes = [to_callee, to_caller]
        return with_candidate(text, _name(callee))

    def answer(self, text: str) -> str:
        """The callee's answer as the caller must see it."""
        assert self._caller is not None, "the offer comes first"
        assert self._callee is not None
        self._callee.peer = candidate_of(text)
        return with_candidate(text, _name(self._caller))

    def close(self) -> None:
        """Carry nothing any more."""
        for lane in self._lanes:
            lane.close()
        for facing in (self._caller, self._callee):
            if facing is not None:
                facing.transport.close()

    def _pass(self, lane: Lane, link: Link, data: bytes, headers: int) -> None:
        if not link.begun and is_media(data):
            self.began, now = time.time(), asyncio.get_running_loop().time()
            self.forward.begin(now)
            self.back.begin(now)
        lane.push(data, len(data) + headers, is_media(data))


def _name(facing: _Facing) -> Address:
    host, port = facing.transport.get_extra_info("sockname")[:2]
    return str(host), int(port)


async def connect(caller: RTCPeerConnection, callee: RTCPeerConnection, relay: Relay) -> None:
    """Offer and answer between two peers of this process, across `relay`; the connection comes about afterwards."""
    await caller.setLocalDescription(await caller.createOffer())
    await callee.setRemoteDescription(RTCSessionDescription(await relay.offer(caller.localDescription.sdp), "offer"))
    await callee.setLocalDescription(await callee.createAnswer())
    await caller.setRemoteDescription(RTCSessionDescription(relay.answer(callee.localDescription.sdp), "answer"))


class WhipProxy:
    """A WHIP endpoint that passes everything on to the one at `target`, and its one call's media through `relay`."""

    def __init__(self, target: str, relay: Relay) -> None:
        self._target, self._relay = URL(target), relay
        self._runner: web.AppRunner | None = None
        self._http: aiohttp.ClientSession | None = None
        self.url = ""
        """Where to call it; empty before `start`."""

    async def start(self) -> None:
        """Listen on a free port of 127.0.0.1."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._pass_on)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
        self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=15))
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.url = str(URL.build(scheme="http", host=host, port=port, path=self._target.path))

    async def stop(self) -> None:
        """Stop listening; the relay is left to its owner."""
        if self._http is not None:
            await self._http.close()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _pass_on(self, request: web.Request) -> web.Response:
        assert self._http is not None
        body = await request.text()
        if request.method == "POST":
            body = await self._relay.offer(body)
        elif request.method == "PATCH":  # the callee knows the one candidate there is
            body = "\r\n".join(line for line in body.splitlines() if not line.startswith(CANDIDATE)) + "\r\n"
        kept = {name: value for name, value in request.headers.items() if name not in ("Host", "Content-Length")}
        url = self._target.with_path(request.path)
        async with self._http.request(
            request.method, url, data=body.encode(), headers=kept, allow_redirects=False
        ) as reply:
            text = await reply.text()
            if request.method == "POST" and reply.status == 201:
                text = self._relay.answer(text)
            headers = {name: reply.headers[name] for name in _PASSED_ON if name in reply.headers}
            if "Location" in reply.headers:  # a path of the proxy's own, or the session could not be ended through it
                headers["Location"] = URL(reply.headers["Location"]).path
            return web.Response(status=reply.status, body=text.encode(), headers=headers)
