"""A WHIP endpoint (RFC 9725) for one call at a time.

Any WHIP sender can call it: semcall, OBS, FFmpeg, GStreamer, a browser page (from elsewhere only with a token).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hmac
import logging
import secrets
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from aiohttp import web
from aiortc import RTCPeerConnection, RTCSessionDescription
from aiortc.exceptions import OperationError
from aiortc.sdp import candidate_from_sdp
from yarl import URL

from shared.errors import SemcallError
from shared.peer import close_peer, create_peer, parse_ice_server, prefer_h264, wait_state
from shared.token import is_token
from shared.whip_offer import CANDIDATE, Offer, check_offer, usable

log = logging.getLogger(__name__)

SDP = "application/sdp"
FRAGMENT = "application/trickle-ice-sdpfrag"  # RFC 8840
MAX_BODY = 64 * 1024
_BODY_SECONDS = 5.0
_CLOSE_SECONDS = 0.6


@dataclass(eq=False, slots=True)
class _Session:
    peer: RTCPeerConnection
    id: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    etag: str = field(default_factory=lambda: f'"{secrets.token_hex(8)}"')
    watch: asyncio.Task[None] | None = None
    ending: asyncio.Task[None] | None = None


class WhipServer:
    """Answers WHIP offers of H.264 video, one call at a time.

    `on_call(peer)` is awaited before the offer is applied: the transceivers exist already, in the order of the
    offer (`shared.peer.video_transceiver` finds the one that will carry the call), no track and no media yet. It
    may replace parts of the receiver and listen to the "track" event. Other sections of the offer (audio, a
    second video) are answered "inactive" unless it sets their transceiver's direction to "recvonly" (their
    tracks must then be consumed).

    `on_end()` is called once for every `on_call` that was made, whatever ended the call: DELETE, a lost or never
    made connection, a failed negotiation, `end_call`, `stop`. The next call can come only after it.

    `token`: senders must show it as bearer token (RFC 6750). Without one, pages of foreign origins (RFC 6454) are
    refused: a browser would let any page that its user visits call a receiver on the same machine. `ice_servers`:
    see `shared.peer.parse_ice_server`; used here and announced to senders. `connect_timeout`: seconds after which a
    call without media connection is dropped. All of it belongs to the event loop that runs `start`.

    Raises SemcallError for a malformed token or ICE server.
    """

    def __init__(
        self,
        on_call: Callable[[RTCPeerConnection], Awaitable[None]],
        *,
        token: str | None = None,
        ice_servers: Sequence[str] = (),
        path: str = "/whip",
        on_end: Callable[[], None] | None = None,
        connect_timeout: float = 20.0,
    ) -> None:
        if token is not None and not is_token(token):
            raise SemcallError(
                "The token is empty or has spaces or unusual characters: choose another with --token, such as "
                "letters and digits."
            )
        self._on_call, self._on_end = on_call, on_end
        self._token = token
        self._ice_servers = tuple(ice_servers)
        self._links = [_link(server) for server in self._ice_servers]
        self._path = "/" + path.strip("/")
        self._connect_timeout = connect_timeout
        self._session: _Session | None = None
        self._runner: web.AppRunner | None = None
        self.url = ""
        """The endpoint as another machine would type it; empty before `start`."""

    async def start(self, host: str = "127.0.0.1", port: int = 8787) -> None:
        """Listen. `port` 0 takes any free one. Raises SemcallError when that address cannot be had."""
        app = web.Application(client_max_size=MAX_BODY, middlewares=[_one_sentence])
        app.on_response_prepare.append(_allow_any_origin)
        endpoint, session = self._path, self._path + "/{id}"
        app.router.add_post(endpoint, self._post)
        app.router.add_delete(session, self._delete)
        app.router.add_patch(session, self._patch)
        for path in (endpoint, session):
            app.router.add_route("OPTIONS", path, self._options)
            app.router.add_get(path, self._get)
        runner = web.AppRunner(app, handle_signals=False, access_log=None, shutdown_timeout=0.2)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port).start()
        except (OSError, OverflowError) as error:
            await runner.cleanup()
            raise SemcallError(_bind_problem(host, port, error)) from error
        self._runner = runner
        bound = int(runner.addresses[0][1])
        self.url = str(URL.build(scheme="http", host=_reachable(host), port=bound, path=endpoint))

    async def stop(self) -> None:
        """End the call and stop listening, within a second."""
        runner, self._runner = self._runner, None
        await self.end_call()
        if runner is not None:
            await runner.cleanup()

    async def end_call(self) -> None:
        """End the call that is on, if any: the sender sees its connection close."""
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
        self._authorize(request)
        if request.content_type != SDP:
            raise web.HTTPUnsupportedMediaType(text=f"Send the offer as {SDP}.")
        offer = check_offer(await _read_text(request))
        while self._session is not None and self._session.peer.connectionState in ("failed", "closed"):
            await self._end(self._session)
        if self._session is not None or self._runner is None:
            raise web.HTTPServiceUnavailable(
                text="This receiver is in another call: try again later.", headers={"Retry-After": "5"}
            )
        session = self._session = _Session(create_peer(self._ice_servers))  # no await since the check: it is ours
        try:
            answer = await self._answer(session.peer, offer)
        except BaseException:
            await self._end(session)
            raise
        if session.ending is not None:
            raise web.HTTPServiceUnavailable(text="This receiver is closing.")
        session.watch = asyncio.ensure_future(self._watch(session))
        headers = {"Location": f"{self._path}/{session.id}", "ETag": session.etag, "Accept-Patch": FRAGMENT}
        # Bytes, so that aiohttp adds no charset to the content type.
        response = web.Response(status=201, body=answer.encode(), content_type=SDP, headers=headers)
        for link in self._links:
            response.headers.add("Link", link)
        return response

    async def _answer(self, peer: RTCPeerConnection, offer: Offer) -> str:
        # One transceiver per section, in the order of the offer: the first carries the transport of all.
        wanted = True
        for media in offer.media:
            call = media.kind == "video" and wanted
            transceiver = peer.addTransceiver(media.kind, "recvonly" if call else "inactive")
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
        self._authorize(request)
        await self._end(self._find(request))
        return web.Response(text="The call has ended.\n")

    async def _patch(self, request: web.Request) -> web.Response:
        """Trickle ICE (RFC 9725 section 4.3.2); ICE restarts are not supported."""
        self._authorize(request)
        session = self._find(request)
        if request.content_type != FRAGMENT:
            raise web.HTTPUnsupportedMediaType(text=f"Send candidates as {FRAGMENT}.")
        tag = request.headers.get("If-Match")
        if tag is None:
            raise web.HTTPPreconditionRequired(text="Send the session's ETag in If-Match.")
        if tag.strip('"') == "*":
            raise web.HTTPUnprocessableEntity(text="ICE restart is not supported: end the call and call again.")
        if tag != session.etag:
            raise web.HTTPPreconditionFailed(text="If-Match is not this session's ETag.")
        mid = None
        for line in (await _read_text(request)).splitlines():
            if line.startswith("a=mid:"):
                mid = line[6:].strip()
            elif line.startswith(CANDIDATE) and usable(line) and session.ending is None:
                candidate = candidate_from_sdp(line.removeprefix(CANDIDATE))
                # All media share the first section's transport.
                candidate.sdpMid, candidate.sdpMLineIndex = mid, 0
                with contextlib.suppress(ValueError):
                    await session.peer.addIceCandidate(candidate)
        return web.Response(status=204, headers={"ETag": session.etag})

    async def _options(self, _: web.Request) -> web.Response:
        return web.Response(
            status=204,
            headers={
                "Accept-Post": SDP,
                "Access-Control-Allow-Methods": "POST, PATCH, DELETE, OPTIONS",
                "Access-Control-Allow-Headers": "Authorization, Content-Type, If-Match",
                "Access-Control-Max-Age": "600",
            },
        )

    async def _get(self, request: web.Request) -> web.Response:
        raise web.HTTPMethodNotAllowed(
            request.method,
            ["POST", "OPTIONS"],
            text="This is a semcall receiver: call it with `semcall send --to` this address, "
            "or from any other WHIP sender such as OBS.",
        )

    def _find(self, request: web.Request) -> _Session:
        session = self._session
        if session is None or session.id != request.match_info["id"]:
            raise web.HTTPNotFound(text="There is no such call (any more).")
        return session

    def _authorize(self, request: web.Request) -> None:
        if self._token is None:
            origin = request.headers.get("Origin")
            if origin is not None and not _is_local(origin):
                raise web.HTTPForbidden(
                    text="Pages from elsewhere may not call this receiver: give the receiver a token with --token."
                )
            return
        scheme, _, shown = request.headers.get("Authorization", "").partition(" ")
        right = hmac.compare_digest(shown.strip().encode("utf-8", "replace"), self._token.encode())
        if scheme.lower() != "bearer" or not right:
            raise web.HTTPUnauthorized(
                text="Show the receiver's token.", headers={"WWW-Authenticate": 'Bearer realm="semcall"'}
            )


@web.middleware
async def _one_sentence(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Give every failure a status and one sentence as text/plain, aiohttp's own and unforeseen ones too."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.text and error.text[:3].isdigit():  # aiohttp's default: "404: Not Found"
            error.text = f"{error.reason}: WHIP calls are made by POST here; see RFC 9725."
        if error.text and not error.text.endswith("\n"):
            error.text += "\n"
        raise
    except Exception:
        log.exception("a WHIP request failed")
        return web.Response(status=500, text="The receiver failed to handle this request.\n")


async def _allow_any_origin(_: web.Request, response: web.StreamResponse) -> None:
    response.headers["Access-Control-Allow-Origin"] = "*"
    response.headers["Access-Control-Expose-Headers"] = "Location, ETag, Link, Accept-Patch, WWW-Authenticate"


def _is_local(origin: str) -> bool:
    """Whether a page came from this machine. "null" says nothing: any page can have it in a sandboxed frame."""
    try:
        return URL(origin).host in ("localhost", "127.0.0.1", "::1")
    except ValueError:
        return False


async def _read_text(request: web.Request) -> str:
    try:
        body = await asyncio.wait_for(request.read(), _BODY_SECONDS)
        return body.decode("utf-8")
    except web.HTTPRequestEntityTooLarge as error:
        raise web.HTTPRequestEntityTooLarge(
            MAX_BODY, text=f"The body is larger than {MAX_BODY // 1024} KiB."
        ) from error
    except TimeoutError as error:
        raise web.HTTPRequestTimeout(text="The body did not arrive in time.") from error
    except UnicodeDecodeError as error:
        raise web.HTTPBadRequest(text="The body is not UTF-8 text.") from error


def _link(text: str) -> str:
    """A Link header that names an ICE server (RFC 9725 section 4.6)."""
    server = parse_ice_server(text)
    link = f'<{server.urls}>; rel="ice-server"'
    if server.username:
        link += f'; username="{server.username}"; credential="{server.credential}"; credential-type="password"'
    return link


def _bind_problem(host: str, port: int, error: Exception) -> str:
    if isinstance(error, OSError) and not isinstance(error, socket.gaierror):
        if error.errno == errno.EADDRINUSE:
            return f"Port {port} on {host} is in use: another semcall receive? Choose another with --port."
        if error.errno in (errno.EACCES, errno.EPERM):
            return f"Port {port} on {host} is not allowed: choose one above 1023 with --port."
    if not 0 <= port < 65536:
        return f"There is no port {port}: choose one from 1 to 65535 with --port."
    return f"{host} is not an address of this machine: use 127.0.0.1, 0.0.0.0 for all, or one of its own with --host."


def _reachable(host: str) -> str:
    """The host to put in the URL: for "all addresses" the one that leads to the network, else loopback."""
    family = {"0.0.0.0": socket.AF_INET, "": socket.AF_INET, "::": socket.AF_INET6}.get(host)
    if family is None:
        return host
    probe = "2001:db8::1" if family == socket.AF_INET6 else "192.0.2.1"  # documentation addresses; nothing is sent
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect((probe, 9))
            return str(sock.getsockname()[0])
    except OSError:
        return "::1" if family == socket.AF_INET6 else "127.0.0.1"
