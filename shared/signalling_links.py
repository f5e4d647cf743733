"""ICE servers in Link headers (RFC 9725 section 4.6, RFC 8288), as one end announces and the other reads them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote

from shared.errors import SemcallError
from shared.peer import parse_ice_server

MAX_SERVERS: Final = 8
"""How many servers are taken from an endpoint; ICE asks them one by one."""

_PARAMETER = r'\s*;\s*([\w-]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^\s;,"]*)'
_LINK = re.compile(rf"<([^<>]*)>((?:{_PARAMETER})*)")
_PARAMETERS = re.compile(_PARAMETER)


def format_link(text: str) -> str:
    """The Link header that names an ICE server. Takes and raises what `shared.peer.parse_ice_server` does."""
    server = parse_ice_server(text)
    link = f'<{server.urls}>; rel="ice-server"'
    if server.username:
        name, secret = (re.sub(r'(["\\])', r"\\\1", str(part)) for part in (server.username, server.credential))
        link += f'; username="{name}"; credential="{secret}"; credential-type="password"'
    return link


def parse_links(headers: Iterable[str]) -> tuple[str, ...]:
    """The ICE servers that Link headers name, for `shared.peer.create_peer`; what is of no use is left out.

    >>> parse_links(['<stun:a.example>; rel="ice-server", <turn:b.example?transport=udp>; rel=ice-server; '
    ...              'username="u:1"; credential="p"', '<http://a.example>; rel="next"'])
    ('stun:a.example', 'turn:u%3A1:p@b.example?transport=udp')
    """
    found: list[str] = []
    for header in headers:
        for address, rest, *_ in _LINK.findall(header):
            parameters = {name.lower(): _unquoted(value) for name, value in _PARAMETERS.findall(rest)}
            if "ice-server" not in parameters.get("rel", "").lower().split():
                continue
            scheme, _, host = address.partition(":")
            if parameters.get("username"):
                name, secret = (quote(parameters.get(key, ""), safe="") for key in ("username", "credential"))
                address = f"{scheme}:{name}:{secret}@{host}"
            with contextlib.suppress(SemcallError):
                parse_ice_server(address)
                found.append(address)
    return tuple(dict.fromkeys(found))[:MAX_SERVERS]


def naked(servers: Iterable[str]) -> str:
    """ICE servers as a list to read, without their passwords.

    >>> naked(("stun:a.example", "turn:me:secret@b.example"))
    'stun:a.example, turn:b.example'
    """
    return ", ".join(str(parse_ice_server(server).urls) for server in servers)


def _unquoted(value: str) -> str:
    return re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value
