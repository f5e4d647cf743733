"""Publishing to a WHIP endpoint (RFC 9725): a semcall receiver, MediaMTX, LiveKit, Janus, Cloudflare."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import aiohttp
from aiohttp.resolver import ThreadedResolver
from aiortc import RTCPeerConnection, RTCSessionDescription
from aiortc.sdp import SessionDescription
from yarl import URL

from shared.errors import SemcallError
from shared.token import is_token

SDP: Final = "application/sdp"
_MAX_ANSWER = 256 * 1024
_RETRY_SECONDS = 0.3
_CONNECT_SECONDS = 3.0
_ANSWER_SECONDS = 10.0
_LATE_ANSWER_SECONDS = 1.5


class _AbsentError(Exception):
    """Nobody listens at that address (yet)."""


@dataclass(frozen=True, slots=True)
class _Reply:
    status: int
    headers: Mapping[str, str]
    url: URL
    body: bytes

    @property
    def sentence(self) -> str:
        """The first line of a plain-text body, to be quoted: " (...)" or nothing."""
        if not self.headers.get("Content-Type", "").startswith("text/plain"):
            return ""
        line = self.body.decode("utf-8", "replace").strip().partition("\n")[0].rstrip(".")
        return f" ({line[:200]})" if line.isprintable() and line else ""


class WhipClient:
    """One call to the WHIP endpoint `url` (http or https), with a bearer `token` if it wants one.

    Raises SemcallError for a malformed address or token.
    """

    def __init__(self, url: str, token: str | None = None) -> None:
        try:
            self._url = URL(url)
            valid = self._url.scheme in ("http", "https") and bool(self._url.host) and self._url.port != 0
        except ValueError:
            valid = False
        if not valid:
            raise SemcallError(f"{url!r} is not an address to call: write it like http://HOST:8787/whip.")
        if token is not None and not is_token(token):
            raise SemcallError(
                "The token has spaces or unusual characters: paste it exactly as the receiver shows it."
            )
        self._token = token
        self._name = str(self._url.with_user(None))
        self.location: URL | None = None
        """Where the session can be ended; None while there is none."""
        self._posting: asyncio.Task[_Reply] | None = None
        self.etag: str | None = None

    async def wait_for_endpoint(self, timeout: float, on_wait: Callable[[], None] | None = None) -> None:
        """Wait until something answers HTTP there, asking every 0.3 s for up to `timeout` seconds.

        `on_wait()` is called once, when the first attempt found nobody. Raises SemcallError when nobody came,
        and at once when the host's name does not resolve or what answers does not speak HTTP.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout
        while True:
            try:
                await self._request("OPTIONS", self._url, limit=max(0.5, min(_CONNECT_SECONDS, end - loop.time())))
                return
            except _AbsentError as error:
                if on_wait is not None:
                    on_wait()
                    on_wait = None
                if loop.time() + _RETRY_SECONDS >= end:
                    raise SemcallError(
                        f"No receiver answers at {self._name} after {timeout:g} s: "
                        "start `semcall receive` there first."
                    ) from error
            await asyncio.sleep(_RETRY_SECONDS)

    async def publish(self, peer: RTCPeerConnection) -> None:
        """Offer the media of `peer`, apply the answer. The connection comes about afterwards (`wait_connected`).

        The transceivers must be there, with H.264 preferred. Candidates are gathered before the offer is sent.
        Redirects 307 and 308 are followed with method and body kept (RFC 9725 section 4.5). Raises SemcallError when
        nobody answers or the answer is of no use; the session is ended then, but `peer` is left to the caller.
        When cancelled, `close` ends the session, even one that the endpoint is only about to make.
        """
        await peer.setLocalDescription(await peer.createOffer())
        posting = self._posting = asyncio.ensure_future(
            self._request("POST", self._url, peer.localDescription.sdp.encode())
        )
        try:
            reply = await asyncio.shield(posting)  # only the answer says where the session can be ended
        except _AbsentError as error:
            raise SemcallError(
                f"No receiver answers at {self._name}: start `semcall receive` there first."
            ) from error
        self._posting = None
        if reply.status != 201:
            raise SemcallError(self._refusal(reply))
        self._note_session(reply)
        try:
            answer = self._check_answer(reply)
            try:
                await peer.setRemoteDescription(RTCSessionDescription(answer, "answer"))
            except Exception as error:  # aiortc raises whatever it runs into; all of it comes from the answer
                raise SemcallError(
                    f"{self._name} answered with a session description of no use ({error})."
                ) from error
        except Exception:
            await self.close()
            raise

    async def close(self) -> None:
        """End the session with DELETE, waiting at most a second. Never raises; harmless when there is none.

        Where `publish` was cancelled, the answer to its offer is waited for first, 1.5 s at most.
        """
        posting, self._posting = self._posting, None
        if posting is not None:
            with contextlib.suppress(SemcallError, _AbsentError, TimeoutError):
                reply = await asyncio.wait_for(posting, _LATE_ANSWER_SECONDS)
                if reply.status == 201:
                    self._note_session(reply)
        location, self.location = self.location, None
        if location is not None:
            with contextlib.suppress(SemcallError, _AbsentError, TimeoutError):
                await asyncio.wait_for(self._request("DELETE", location), 1.0)

    def _note_session(self, reply: _Reply) -> None:
        if "Location" in reply.headers:
            with contextlib.suppress(ValueError):  # no address: then the session cannot be ended
                self.location = reply.url.join(URL(reply.headers["Location"]))
        self.etag = reply.headers.get("ETag")

    async def _request(
        self, method: str, url: URL, body: bytes | None = None, limit: float = _CONNECT_SECONDS
    ) -> _Reply:
        """One HTTP exchange, connecting within `limit` seconds. Raises _AbsentError or SemcallError."""
        headers = {"Accept": SDP, "Content-Type": SDP} if body is not None else {}
        # The token goes to the origin that the user named, and to where it redirects within itself.
        if self._token is not None and url.origin() == self._url.origin():
            headers["Authorization"] = f"Bearer {self._token}"
        answer_within = _CONNECT_SECONDS if body is None else _ANSWER_SECONDS
        timeouts = aiohttp.ClientTimeout(total=limit + answer_within, sock_connect=limit)
        connector = aiohttp.TCPConnector(resolver=ThreadedResolver(), force_close=True)
        try:
            async with (
                aiohttp.ClientSession(connector=connector, timeout=timeouts) as session,
                session.request(method, url, data=body, headers=headers) as response,
            ):
                text = b""
                if method == "POST":
                    async for chunk in response.content.iter_chunked(16 * 1024):
                        text += chunk
                        if len(text) > _MAX_ANSWER:
                            raise SemcallError(f"{self._name} is not a WHIP endpoint: its answer never ends.")
                return _Reply(response.status, response.headers, response.url, text)
        except (aiohttp.ClientSSLError, aiohttp.ServerFingerprintMismatch) as error:
            raise SemcallError(
                f"No trusted TLS connection to {self._name}: check the certificate, or write http:// if it has none."
            ) from error
        except (aiohttp.ClientConnectorError, aiohttp.ServerTimeoutError) as error:
            if isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.os_error, socket.gaierror):
                raise SemcallError(
                    f"The name {url.host} does not resolve: check the address and this machine's network."
                ) from error
            raise _AbsentError from error
        except aiohttp.TooManyRedirects as error:
            raise SemcallError(f"{self._name} redirects in circles: check the address.") from error
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise SemcallError(
                f"{self._name} is not a WHIP endpoint: what listens there does not answer in HTTP."
            ) from error

    def _refusal(self, reply: _Reply) -> str:
        if reply.status in (401, 403):
            if self._token is None:
                return f"{self._name} wants a token: give the one it shows with --token."
            return f"{self._name} does not accept this token: paste the one it shows after --token."
        if reply.status == 503:
            return f"{self._name} is busy with another call: try again when that has ended."
        if reply.status in (400, 406, 415, 422):
            return f"{self._name} refuses the call{reply.sentence}: it must be able to receive H.264 video."
        if reply.status in (429, 500, 502, 504):
            return f"{self._name} cannot take the call now (HTTP {reply.status}){reply.sentence}: try again later."
        return (
            f"{self._name} is not a WHIP endpoint (HTTP {reply.status}): "
            "check the address; that of `semcall receive` ends in /whip."
        )

    def _check_answer(self, reply: _Reply) -> str:
        """The answer's text, if it is a session description that takes our H.264 video."""
        media_type = reply.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        try:
            if media_type != SDP:
                raise ValueError(f"its type is {media_type or 'missing'}")
            text = reply.body.decode("utf-8")
            answer = SessionDescription.parse(text)
        except Exception as error:  # aiortc's parser raises whatever its code runs into
            raise SemcallError(
                f"{self._name} is not a WHIP endpoint: it answered without a session description."
            ) from error
        for media in answer.media:
            codecs = {codec.mimeType.lower() for codec in media.rtp.codecs}
            takes = media.port != 0 and media.direction in (None, "recvonly", "sendrecv")
            if media.kind == "video" and "video/h264" in codecs and takes:
                return text
        raise SemcallError(f"{self._name} refuses H.264 video: use a receiver that takes it.")
