"""Watching what a WHEP endpoint sends (draft-ietf-wish-whep): a semcall sender, MediaMTX, Cloudflare."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from aiortc import RTCPeerConnection

from shared.errors import SemcallError
from shared.peer import close_peer, create_peer, parse_ice_server, prefer_h264, wait_connected, wait_state
from shared.signalling_client import CallClient
from shared.signalling_role import WHEP


class WhepClient(CallClient):
    """One call to a WHEP endpoint; see `CallClient`.

    Of the draft's two ways only the usual one: we offer, the endpoint answers with 201. One that wants to make the
    offer itself (406 with a counter-offer) is refused in a sentence.
    """

    role = WHEP

    async def play(self, peer: RTCPeerConnection) -> None:
        """Ask for what `peer` would receive ("recvonly" transceivers); see `CallClient.negotiate`."""
        await self.negotiate(peer)


class WhepViewer:
    """One call to the WHEP endpoint `url`, from the first look for it to its end.

    `on_call(peer)` is awaited before the offer is made: the video's transceiver exists already, and no media yet.
    `on_end()` is called once for every `on_call`, whatever ended the call. `token`: what the endpoint wants to be
    shown; `ice_servers`: see `shared.peer.parse_ice_server`, those that the endpoint names are asked too. All of it
    belongs to the event loop that runs `begin`. Raises SemcallError for a malformed address, token or ICE server.
    """

    def __init__(
        self,
        url: str,
        on_call: Callable[[RTCPeerConnection], Awaitable[None]],
        *,
        token: str | None = None,
        ice_servers: Sequence[str] = (),
        on_end: Callable[[], None] | None = None,
    ) -> None:
        self._client = WhepClient(url, token)
        for server in ice_servers:
            parse_ice_server(server)
        self._on_call, self._on_end = on_call, on_end
        self._ice_servers = tuple(ice_servers)
        self._beginning: asyncio.Task[None] | None = None
        self._peer: RTCPeerConnection | None = None
        self._watch: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None
        self.url = url
        self.end = ""
        """One sentence on why the call ended by itself; empty when it did not."""

    @property
    def named(self) -> tuple[str, ...]:
        """The ICE servers that the endpoint named."""
        return self._client.ice_servers

    async def begin(self, on_wait: Callable[[], None], timeout: float = 60.0) -> None:
        """Start to call; `begun` says how that goes.

        `timeout`: seconds to wait for an endpoint that is not there yet; `on_wait()` is called once, when it is not.
        """
        self._beginning = asyncio.ensure_future(self._begin(on_wait, timeout))

    async def begun(self, seconds: float) -> bool:
        """Whether the connection stands, within so many seconds. Raises SemcallError when none can come about."""
        if self._beginning is None:
            return False
        done, _ = await asyncio.wait({self._beginning}, timeout=seconds)
        if self._beginning.cancelled():
            raise SemcallError(f"The call to {self.url} was given up before a media connection came about.")
        if done:
            self._beginning.result()
        return bool(done)

    async def end_call(self) -> None:
        """Hang up, within two seconds, and let `end` say that it is over. Harmless when nothing is on."""
        self.end = self.end or "The call has ended."
        await self.stop()

    async def stop(self) -> None:
        """Hang up in silence."""
        if self._ending is None:
            self._ending = asyncio.ensure_future(self._hang_up())
        await asyncio.shield(self._ending)

    async def _begin(self, on_wait: Callable[[], None], timeout: float) -> None:
        await self._client.wait_for_endpoint(timeout, on_wait)
        peer = create_peer((*self._ice_servers, *self._client.ice_servers))
        prefer_h264(peer.addTransceiver("video", direction="recvonly"))
        self._peer = peer
        await self._on_call(peer)
        await self._client.play(peer)
        await wait_connected(peer)
        self._watch = asyncio.ensure_future(self._until_lost(peer))

    async def _until_lost(self, peer: RTCPeerConnection) -> None:
        lost = await wait_state(peer, "failed", "closed") == "failed"
        if self._ending is None:
            self.end = "The connection to the sender is lost." if lost else "The sender has hung up."
            self._watch = None  # or end_call would cancel this very task
            await self.end_call()

    async def _hang_up(self) -> None:
        for task in (self._beginning, self._watch):
            if task is not None and not task.cancel() and not task.cancelled():
                task.exception()  # nobody may have asked
        await self._client.close()
        peer, self._peer = self._peer, None
        if peer is not None:
            await close_peer(peer)
            if self._on_end is not None:
                self._on_end()
