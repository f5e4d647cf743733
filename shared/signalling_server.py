"""An endpoint that answers offers of WHIP (RFC 9725) or WHEP (draft-ietf-wish-whep), for one call at a time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Final

from aiohttp import web
from aiortc import RTCPeerConnection, RTCSessionDescription
from aiortc.exceptions import OperationError
from aiortc.sdp import candidate_from_sdp
from yarl import URL

from shared.errors import SemcallError
from shared.peer import close_peer, create_peer, prefer_h264, wait_state
from shared.signalling_http import MAX_BODY, SDP, allow_any_origin, authorize, one_sentence, preflight, read_text
from shared.signalling_links import format_link
from shared.signalling_listen import bind_problem, reachable
from shared.signalling_offer import CANDIDATE, UFRAG, Offer, check_offer, usable
from shared.signalling_role import Role
from shared.token import is_token

log = logging.getLogger(__name__)

FRAGMENT: Final = "application/trickle-ice-sdpfrag"  # RFC 8840
_CLOSE_SECONDS = 0.6
_PLACE_OPTIONS = ("--port", "--host")


@dataclass(eq=False, slots=True)
class _Session:
    peer: RTCPeerConnection
    ufrags: frozenset[str]
    id: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    etag: str = field(default_factory=lambda: f'"{secrets.token_hex(8)}"')
    watch: asyncio.Task[None] | None = None
    ending: asyncio.Task[None] | None = None


class CallServer:
    """Answers offers of H.264 video, one call at a time; `WhipServer` and `WhepServer` say which way the video goes.

    `on_call(peer)` is awaited before the offer is applied: the transceivers exist already, in the order of the
    offer (`shared.peer.video_transceiver` finds the one that will carry the call), no track and no media yet. It
    may replace parts of them, set the track to send, and listen to the "track" event. Other sections of the offer
    (audio, a second video) are answered "inactive" unless it sets their transceiver's direction (tracks that then
    come must be consumed).

    `on_end()` is called once for every `on_call` that was made, whatever ended the call: DELETE, a lost or never
    made connection, a failed negotiation, `end_call`, `stop`. The next call can come only after it.

    `token`: callers must show it as bearer token (RFC 6750). Without one, pages of foreign origins (RFC 6454) are
    refused: a browser would let any page that its user visits call a server on the same machine. `ice_servers`:
    see `shared.peer.parse_ice_server`; used here and announced to callers. `replace`: a new call ends the one that
    is on, instead of being refused with HTTP 503. `tls`: see `shared.signalling_listen.server_tls`.
    `connect_timeout`: seconds after which a call without media connection is dropped. `place_options`: what chooses
    port and host on the command line. All of it belongs to the event loop that runs `start`.

    Raises SemcallError for a malformed token or ICE server.
    """

    role: ClassVar[Role]

    def __init__(
        self,
        on_call: Callable[[RTCPeerConnection], Awaitable[None]],
        *,
        token: str | None = None,
        ice_servers: Sequence[str] = (),
        path: str | None = None,
        on_end: Callable[[], None] | None = None,
        connect_timeout: float = 20.0,
        replace: bool = False,
        tls: ssl.SSLContext | None = None,
        place_options: tuple[str, str] = _PLACE_OPTIONS,
    ) -> None:
        if token is not None and not is_token(token):
            raise SemcallError(
                "The token is empty or has spaces or unusual characters: choose another with --token, such as "
                "letters and digits."
            )
        self._on_call, self._on_end = on_call, on_end
        self._token, self._replace, self._tls = token, replace, tls
        self._place_options = place_options
        self._ice_servers = tuple(ice_servers)
        self._links = [format_link(server) for server in self._ice_servers]
        self._path = "/" + (path or self.role.path).strip("/")
        self._connect_timeout = connect_timeout
        self._session: _Session | None = None
        self._runner: web.AppRunner | None = None
        self.url = ""
        """The endpoint as another machine would type it; empty before `start`."""

    async def start(self, host: str = "127.0.0.1", port: int = 8787) -> None:
        """Listen. `port` 0 takes any free one. Raises SemcallError when that address cannot be had."""
        app = web.Application(client_max_size=MAX_BODY, middlewares=[one_sentence(self.role)])
        app.on_response_prepare.append(allow_any_origin)
        endpoint, session = self._path, self._path + "/{id}"
        app.router.add_post(endpoint, self._post)
        app.router.add_delete(session, self._delete)
        app.router.add_patch(session, self._patch)
        for path in (endpoint, session):
            app.router.add_route("OPTIONS", path, self._options)
            app.router.add_get(path, self._get)
        # Left compressed: aiohttp would log a traceback for a body that is not what its Content-Encoding says.
        runner = web.AppRunner(
            app, handle_signals=False, access_log=None, shutdown_timeout=0.2, auto_decompress=False
        )
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port, ssl_context=self._tls).start()
        except (OSError, OverflowError) as error:
            await runner.cleanup()
            raise SemcallError(bind_problem(host, port, error, *self._place_options)) from error
        self._runner = runner
        bound = int(runner.addresses[0][1])
        scheme = "http" if self._tls is None else "https"
        self.url = str(URL.build(scheme=scheme, host=reachable(host), port=bound, path=endpoint))

    async def stop(self) -> None:
        """End the call and stop listening, within a second."""
        runner, self._runner = self._runner, None
        await self.end_call()
        if runner is not None:
            await runner.cleanup()

    async def end_call(self) -> None:
        """End the call that is on, if any: the caller sees its connection close."""
        if self._session is not None:
            await self._end(self._session)

    @property
    def busy(self) -> bool:
        """Whether a call is on."""
        return self._session is not None

    # Session life

    async def _end(self, session: _Session) -> None:
        """End a session once; every caller waits until it has ended."""
        if session.ending is None:
            session.ending = asyncio.ensure_future(self._end_once(session))
        await asyncio.shield(session.ending)

    async def _end_once(self, session: _Session) -> None:
        if session.watch is not None:
            session.watch.cancel()
        await close_peer(session.peer, _CLOSE_SECONDS)
        self._session = None
        if self._on_end is not None:
            self._on_end()

    async def _watch(self, session: _Session) -> None:
        """End a session whose connection failed, closed or never came about."""
        try:
            async with asyncio.timeout(self._connect_timeout):
                await wait_state(session.peer, "connected", "failed", "closed")
        except TimeoutError:
            log.warning("a call was dropped: no media connection came about")
        else:
            await wait_state(session.peer, "failed", "closed")
        session.watch = None  # or _end would cancel this very task
        await self._end(session)

    # Requests

    async def _post(self, request: web.Request) -> web.Response:
        authorize(request, self._token, self.role.server)
        if request.content_type != SDP:
            raise web.HTTPUnsupportedMediaType(text=f"Send the offer as {SDP}.")
        offer = check_offer(await read_text(request), self.role)
        while (on := self._session) is not None and (
            self._replace or on.peer.connectionState in ("failed", "closed")
        ):
            await self._end(on)
        if self._session is not None or self._runner is None:
            raise self._busy()
        session = _Session(create_peer(self._ice_servers), offer.ufrags)
        self._session = session  # no await since the check: it is ours
        try:
            answer = await self._answer(session.peer, offer)
        except BaseException as error:
            replaced = session.ending is not None and isinstance(error, Exception)
            await self._end(session)
            if replaced:
                raise self._busy() from error
            raise
        if session.ending is not None:
            raise self._busy()
        session.watch = asyncio.ensure_future(self._watch(session))
        headers = {"Location": f"{self._path}/{session.id}", "ETag": session.etag, "Accept-Patch": FRAGMENT}
        # Bytes, so that aiohttp adds no charset to the content type.
        response = web.Response(status=201, body=answer.encode(), content_type=SDP, headers=headers)
        self._announce(response)
        return response

    async def _answer(self, peer: RTCPeerConnection, offer: Offer) -> str:
        # One transceiver per section, in the order of the offer: the first carries the transport of all.
        wanted = True
        for media in offer.media:
            call = media.kind == "video" and wanted
            transceiver = peer.addTransceiver(media.kind, self.role.direction if call else "inactive")
            if call:
                prefer_h264(transceiver, offer.profile)
                wanted = False
        await self._on_call(peer)
        try:
            await peer.setRemoteDescription(RTCSessionDescription(offer.text, "offer"))
            # aiortc keeps only the last section's candidates, but a bundle may list them in the first alone.
            transport = peer.getTransceivers()[0].receiver.transport.transport
            for candidate in (candidate for media in offer.media for candidate in media.ice_candidates):
                await transport.addRemoteCandidate(candidate)
            await peer.setLocalDescription(await peer.createAnswer())
        except OperationError as error:
            raise web.HTTPUnprocessableEntity(text="The offer has a section without a codec in common.") from error
        except Exception as error:  # aiortc raises whatever it runs into; all of it comes from the offer
            log.info("an offer was refused: %r", error)
            raise web.HTTPBadRequest(text="The offer contradicts itself.") from error
        return str(peer.localDescription.sdp)

    async def _delete(self, request: web.Request) -> web.Response:
        authorize(request, self._token, self.role.server)
        await self._end(self._find(request))
        return web.Response(text="The call has ended.\n")

    async def _patch(self, request: web.Request) -> web.Response:
        """Trickle ICE (RFC 9725 section 4.3.2); ICE restarts (4.3.3) are not supported."""
        authorize(request, self._token, self.role.server)
        session = self._find(request)
        if request.content_type != FRAGMENT:
            raise web.HTTPUnsupportedMediaType(text=f"Send candidates as {FRAGMENT}.")
        header = request.headers.get("If-Match")
        if header is None:
            raise web.HTTPPreconditionRequired(text="Send the session's ETag in If-Match.")
        tags = [tag.strip() for tag in header.split(",")]
        no_restart = web.HTTPUnprocessableEntity(text="ICE restart is not supported: end the call and call again.")
        if tags in (["*"], ['"*"']):
            raise no_restart
        if session.etag not in tags:
            raise web.HTTPPreconditionFailed(text="If-Match is not this session's ETag.")
        lines = (await read_text(request)).splitlines()
        if any(line.startswith(UFRAG) and line.removeprefix(UFRAG).strip() not in session.ufrags for line in lines):
            raise no_restart
        mid = None
        for line in lines:
            if line.startswith("a=mid:"):
                mid = line[6:].strip()
            elif line.startswith(CANDIDATE) and usable(line) and session.ending is None:
                candidate = candidate_from_sdp(line.removeprefix(CANDIDATE))
                # All media share the first section's transport.
                candidate.sdpMid, candidate.sdpMLineIndex = mid, 0
                with contextlib.suppress(ValueError):
                    await session.peer.addIceCandidate(candidate)
        return web.Response(status=204, headers={"ETag": session.etag})

    async def _options(self, request: web.Request) -> web.Response:
        response = preflight()
        # A preflight shows no token and needs none, but a TURN password is only for those who may call.
        with contextlib.suppress(web.HTTPException):
            authorize(request, self._token, self.role.server)
            self._announce(response)
        return response

    async def _get(self, request: web.Request) -> web.Response:
        raise web.HTTPMethodNotAllowed(request.method, ["POST", "OPTIONS"], text=self.role.greeting)

    def _announce(self, response: web.Response) -> None:
        for link in self._links:
            response.headers.add("Link", link)

    def _busy(self) -> web.HTTPException:
        server = self.role.server
        text = f"This {server} is {'closing' if self._runner is None else 'in another call'}: try again later."
        return web.HTTPServiceUnavailable(text=text, headers={"Retry-After": "5"})

    def _find(self, request: web.Request) -> _Session:
        session = self._session
        if session is None or session.id != request.match_info["id"]:
            raise web.HTTPNotFound(text="There is no such call (any more).")
        return session
