"""What an endpoint asks of every HTTP request: a token or a local page, a small body, and one sentence on failure."""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Middleware
from yarl import URL

from shared.signalling_role import Role

log = logging.getLogger(__name__)

SDP: Final = "application/sdp"
MAX_BODY: Final = 64 * 1024
"""Bytes of a body that are read at most."""
_BODY_SECONDS = 5.0
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def authorize(request: web.Request, token: str | None, server: str) -> None:
    """Let pass who shows the bearer token (RFC 6750 section 2.1), else HTTP 401; compared in constant time.

    Without a token, pages of foreign origins (RFC 6454) get HTTP 403. `server`: what this end calls itself.
    """
    if token is None:
        origin = request.headers.get("Origin")
        if origin is not None and not _is_local(origin):
            raise web.HTTPForbidden(
                text=f"Pages from elsewhere may not call this {server}: give the {server} a token with --token."
            )
        return
    scheme, _, shown = request.headers.get("Authorization", "").partition(" ")
    right = hmac.compare_digest(shown.strip().encode("utf-8", "replace"), token.encode())
    if scheme.lower() != "bearer" or not right:
        raise web.HTTPUnauthorized(
            text=f"Show the {server}'s token.", headers={"WWW-Authenticate": 'Bearer realm="semcall"'}
        )


def preflight() -> web.Response:
    """The answer to OPTIONS: what pages may send (CORS) and what can be posted (RFC 9725 section 4.7)."""
    return web.Response(
        status=204,
        headers={
            "Accept-Post": SDP,
            "Access-Control-Allow-Methods": "POST, PATCH, DELETE, OPTIONS",
            "Access-Control-Allow-Headers": "Authorization, Content-Type, If-Match",
            "Access-Control-Max-Age": "600",
        },
    )


async def allow_any_origin(_: web.Request, response: web.StreamResponse) -> None:
    """Let pages read every answer, refusals too: an aiohttp signal (`on_response_prepare`)."""
    response.headers["Access-Control-Allow-Origin"] = "*"
    response.headers["Access-Control-Expose-Headers"] = "Location, ETag, Link, Accept-Patch, WWW-Authenticate"


def one_sentence(role: Role) -> Middleware:
    """A middleware that gives every failure a status and one sentence as text/plain, even an unforeseen one."""

    @web.middleware
    async def middleware(request: web.Request, handler: _Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPException as error:
            if error.text and error.text[:3].isdigit():  # aiohttp's default: "404: Not Found"
                error.text = f"{error.reason}: {role.protocol} calls are made by POST here."
            if error.text and not error.text.endswith("\n"):
                error.text += "\n"
            raise
        except Exception:
            log.exception("a %s request failed", role.protocol)
            return web.Response(status=500, text=f"The {role.server} failed to handle this request.\n")

    return middleware


async def read_text(request: web.Request) -> str:
    """The body, if it is text of at most `MAX_BODY` bytes that comes in time; else HTTP 400, 408, 413 or 415."""
    if request.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise web.HTTPUnsupportedMediaType(text="Send the body as it is, not compressed.")
    try:
        body = await asyncio.wait_for(request.read(), _BODY_SECONDS)
        return body.decode("utf-8")
    except web.HTTPRequestEntityTooLarge as error:
        raise web.HTTPRequestEntityTooLarge(
            MAX_BODY, text=f"The body is larger than {MAX_BODY // 1024} KiB."
        ) from error
    except web.RequestPayloadError as error:
        raise web.HTTPBadRequest(text="The body breaks off.") from error
    except TimeoutError as error:
        raise web.HTTPRequestTimeout(text="The body did not arrive in time.") from error
    except UnicodeDecodeError as error:
        raise web.HTTPBadRequest(text="The body is not UTF-8 text.") from error


def _is_local(origin: str) -> bool:
    """Whether a page came from this machine. "null" says nothing: any page can have it in a sandboxed frame."""
    try:
        return URL(origin).host in ("localhost", "127.0.0.1", "::1")
    except ValueError:
        return False
