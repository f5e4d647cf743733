"""Calling a WHIP (RFC 9725) or WHEP (draft-ietf-wish-whep) endpoint: offer, answer, goodbye."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import ClassVar

from aiortc import RTCPeerConnection, RTCSessionDescription
from aiortc.sdp import SessionDescription
from yarl import URL

from shared.errors import SemcallError
from shared.signalling_exchange import CONNECT_SECONDS, AbsentError, Exchange, Reply
from shared.signalling_http import SDP
from shared.signalling_links import parse_links
from shared.signalling_role import Role
from shared.token import is_token

_RETRY_SECONDS = 0.3
_LATE_ANSWER_SECONDS = 1.5


class CallClient:
    """One call to the endpoint `url` (http or https), with a bearer `token` if it wants one.

    `WhipClient` and `WhepClient` say which way the video goes. Raises SemcallError for a malformed address or token.
    """

    role: ClassVar[Role]

    def __init__(self, url: str, token: str | None = None) -> None:
        try:
            self._url = URL(url)
            valid = self._url.scheme in ("http", "https") and bool(self._url.host) and self._url.port != 0
        except ValueError:
            valid = False
        if not valid:
            raise SemcallError(f"{url!r} is not an address to call: write it like http://HOST:8787{self.role.path}.")
        if token is not None and not is_token(token):
            raise SemcallError(
                f"The token has spaces or unusual characters: paste it exactly as the {self.role.server} shows it."
            )
        self._token = token
        self.name = str(self._url.with_user(None))
        """The address, without what only the endpoint should read of it."""
        self._http = Exchange(self._url, token, self.role.protocol)
        self._posting: asyncio.Task[Reply] | None = None
        self.location: URL | None = None
        """Where the session can be ended; None while there is none."""
        self.etag: str | None = None
        self.ice_servers: tuple[str, ...] = ()
        """The STUN and TURN servers that the endpoint named so far, for `shared.peer.create_peer`."""

    async def wait_for_endpoint(self, timeout: float, on_wait: Callable[[], None] | None = None) -> None:
        """Wait until something answers HTTP there, asking every 0.3 s for up to `timeout` seconds.

        It is asked by OPTIONS, to which an endpoint may name its ICE servers (RFC 9725 section 4.6): a peer
        connection must know them before the offer. `on_wait()` is called once, when the first attempt found nobody.
        Raises SemcallError when nobody came, and at once when the host's name does not resolve or what answers does
        not speak HTTP.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout
        while True:
            try:
                limit = max(0.5, min(CONNECT_SECONDS, end - loop.time()))
                reply = await self._http.request("OPTIONS", self._url, limit=limit)
                self.ice_servers = parse_links(reply.links)
                return
            except AbsentError as error:
                if on_wait is not None:
                    on_wait()
                    on_wait = None
                if loop.time() + _RETRY_SECONDS >= end:
                    raise SemcallError(f"{self._nobody} after {timeout:g} s: {self._start_it}") from error
            await asyncio.sleep(_RETRY_SECONDS)

    async def negotiate(self, peer: RTCPeerConnection) -> None:
        """Offer the media of `peer`, apply the answer. The connection comes about afterwards (`wait_connected`).

        The transceivers must be there, with H.264 preferred. Candidates are gathered before the offer is sent.
        Redirects 307 and 308 are followed with method and body kept (RFC 9725 section 4.5). Raises SemcallError when
        nobody answers or the answer is of no use; the session is ended then, but `peer` is left to the caller.
        When cancelled, `close` ends the session, even one that the endpoint is only about to make.
        """
        await peer.setLocalDescription(await peer.createOffer())
        posting = self._posting = asyncio.ensure_future(
            self._http.request("POST", self._url, peer.localDescription.sdp.encode())
        )
        try:
            reply = await asyncio.shield(posting)  # only the answer says where the session can be ended
        except AbsentError as error:
            raise SemcallError(f"{self._nobody}: {self._start_it}") from error
        self._posting = None
        if reply.status != 201:
            raise SemcallError(self._refusal(reply))
        self._note_session(reply)
        try:
            answer = self._check_answer(reply)
            try:
                await peer.setRemoteDescription(RTCSessionDescription(answer, "answer"))
            except Exception as error:  # aiortc raises whatever it runs into; all of it comes from the answer
                raise SemcallError(f"{self.name} answered with a session description of no use ({error}).") from error
        except Exception:
            await self.close()
            raise

    async def close(self) -> None:
        """End the session with DELETE, waiting at most a second. Never raises; harmless when there is none.

        Where `negotiate` was cancelled, the answer to its offer is waited for first, 1.5 s at most.
        """
        posting, self._posting = self._posting, None
        if posting is not None:
            with contextlib.suppress(SemcallError, AbsentError, TimeoutError):
                reply = await asyncio.wait_for(posting, _LATE_ANSWER_SECONDS)
                if reply.status == 201:
                    self._note_session(reply)
        location, self.location = self.location, None
        if location is not None:
            with contextlib.suppress(SemcallError, AbsentError, TimeoutError):
                await asyncio.wait_for(self._http.request("DELETE", location), 1.0)

    def _note_session(self, reply: Reply) -> None:
        if "Location" in reply.headers:
            with contextlib.suppress(ValueError):  # no address: then the session cannot be ended
                self.location = reply.url.join(URL(reply.headers["Location"]))
        self.etag = reply.headers.get("ETag")

    @property
    def _nobody(self) -> str:
        return f"No {self.role.server} answers at {self.name}"

    @property
    def _start_it(self) -> str:
        return f"start `{self.role.command}` there first."

    def _refusal(self, reply: Reply) -> str:
        status, told = reply.status, reply.sentence
        if status in (401, 403):
            if self._token is None:
                return f"{self.name} wants a token{told}: give the one it shows with --token."
            return f"{self.name} does not accept this token{told}: paste the one it shows after --token."
        if status == 503:
            return f"{self.name} is busy with another call{told}: try again when that has ended."
        if status == 406 and reply.media_type == SDP:
            return f"{self.name} wants to make the offer itself (HTTP 406), which semcall cannot answer."
        if status in (400, 406, 409, 413, 415, 422):
            return f"{self.name} refuses the call{told}: {self.role.need}."
        if status in (408, 429, 500, 502, 504):
            return f"{self.name} cannot take the call now (HTTP {status}){told}: try again later."
        if status in (301, 302, 303):
            return f"{self.name} has moved (HTTP {status}): call it at the address where it is now."
        return (
            f"{self.name} is not a {self.role.protocol} endpoint (HTTP {status}){told}: "
            f"check the address; that of `{self.role.command}` ends in {self.role.path}."
        )

    def _check_answer(self, reply: Reply) -> str:
        """The answer's text, if it is a session description that agrees to H.264 video."""
        try:
            if reply.media_type != SDP:
                raise ValueError(f"its type is {reply.media_type or 'missing'}")
            text = reply.body.decode("utf-8")
            answer = SessionDescription.parse(text)
        except Exception as error:  # aiortc's parser raises whatever its code runs into
            raise SemcallError(
                f"{self.name} is not a {self.role.protocol} endpoint: it answered without a session description."
            ) from error
        for media in answer.media:
            codecs = {codec.mimeType.lower() for codec in media.rtp.codecs}
            agreed = media.port != 0 and media.direction in (None, self.role.direction, "sendrecv")
            if media.kind == "video" and "video/h264" in codecs and agreed:
                return text
        raise SemcallError(f"{self.name} refuses H.264 video: use another {self.role.server}.")
