"""HTTP as the calling end speaks it: one request and what came back, redirects followed, failures in a sentence."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import aiohttp
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from shared.errors import SemcallError
from shared.signalling_http import SDP

CONNECT_SECONDS = 3.0
_ANSWER_SECONDS = 10.0
_MAX_ANSWER = 256 * 1024
_REDIRECTS = 5  # in a row


class AbsentError(Exception):
    """Nobody listens at that address (yet)."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What an endpoint answered; `links`: its Link headers."""

    status: int
    headers: Mapping[str, str]
    links: Sequence[str]
    url: URL
    body: bytes

    @property
    def media_type(self) -> str:
        """Its content type in small letters, without parameters."""
        return self.headers.get("Content-Type", "").partition(";")[0].strip().lower()

    @property
    def sentence(self) -> str:
        """What the server says about a failure, to be quoted: " (...)" or nothing.

        The first line of plain text, or the telling member of a JSON object (RFC 9457, and what servers use).
        """
        text = self.body.decode("utf-8", "replace")
        if self.media_type in ("application/json", "application/problem+json"):
            try:
                told = json.loads(text)
            except (ValueError, RecursionError):
                return ""
            names = ("detail", "title", "error", "message")
            values = [told[name] for name in names if name in told] if isinstance(told, dict) else []
            text = next((value for value in values if isinstance(value, str)), "")
        elif self.media_type != "text/plain":
            return ""
        line = text.strip().partition("\n")[0].strip().rstrip(".")
        return f" ({line[:200]})" if line.isprintable() and line else ""


class Exchange:
    """HTTP requests to the origin of `url` and to where it sends them on. `protocol` names it in sentences.

    The bearer `token` goes to that origin alone (RFC 6454), never to another one, wherever a redirect leads.
    """

    def __init__(self, url: URL, token: str | None, protocol: str) -> None:
        self._url, self._token, self._protocol = url, token, protocol
        self._name = str(url.with_user(None))

    async def request(
        self, method: str, url: URL, body: bytes | None = None, limit: float = CONNECT_SECONDS
    ) -> Reply:
        """Ask, connecting within `limit` seconds; redirects 307 and 308 are followed with method and body kept.

        Raises AbsentError where nobody listens, SemcallError for all else that is no HTTP answer.
        """
        for _ in range(_REDIRECTS + 1):
            reply = await self._once(method, url, body, limit)
            if reply.status not in (307, 308) or "Location" not in reply.headers:
                return reply
            try:
                url = reply.url.join(URL(reply.headers["Location"]))
                if url.scheme not in ("http", "https") or not url.host:
                    raise ValueError(url)
            except ValueError as error:
                raise SemcallError(f"{self._name} redirects to what is no address of the web.") from error
        raise SemcallError(f"{self._name} redirects in circles: check the address.")

    async def _once(self, method: str, url: URL, body: bytes | None, limit: float) -> Reply:
        headers = {"Accept": SDP, "Content-Type": SDP} if body is not None else {}
        if self._token is not None and url.origin() == self._url.origin():
            headers["Authorization"] = f"Bearer {self._token}"
        answer_within = CONNECT_SECONDS if body is None else _ANSWER_SECONDS
        timeouts = aiohttp.ClientTimeout(total=limit + answer_within, sock_connect=limit)
        connector = aiohttp.TCPConnector(resolver=ThreadedResolver(), force_close=True)
        try:
            async with (
                aiohttp.ClientSession(connector=connector, timeout=timeouts) as session,
                session.request(method, url, data=body, headers=headers, allow_redirects=False) as response,
            ):
                text = b""
                if method == "POST":
                    async for chunk in response.content.iter_chunked(16 * 1024):
                        text += chunk
                        if len(text) > _MAX_ANSWER:
                            raise SemcallError(f"{self._not_one()}: its answer never ends.")
                links = response.headers.getall("Link", [])
                return Reply(response.status, response.headers, links, response.url, text)
        except (aiohttp.ClientSSLError, aiohttp.ServerFingerprintMismatch) as error:
            raise SemcallError(
                f"No trusted TLS connection to {self._name}: check the certificate, or write http:// if it has none."
            ) from error
        except (aiohttp.ClientConnectorError, aiohttp.ServerTimeoutError) as error:
            if isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.os_error, socket.gaierror):
                raise SemcallError(
                    f"The name {url.host} does not resolve: check the address and this machine's network."
                ) from error
            raise AbsentError from error
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise SemcallError(f"{self._not_one()}: what listens there does not answer in HTTP.") from error

    def _not_one(self) -> str:
        return f"{self._name} is not a {self._protocol} endpoint"
