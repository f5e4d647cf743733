"""What a WHIP or WHEP endpoint can take: checks on an offer before aiortc sees it."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from aiohttp import web
from aiortc.sdp import MediaDescription, SessionDescription, candidate_from_sdp

from shared.peer import offered_h264
from shared.signalling_role import WHIP, Role

CANDIDATE = "a=candidate:"
"""How a candidate's line begins (RFC 8839 section 5.1)."""
UFRAG = "a=ice-ufrag:"
"""How the line begins that names an ICE generation (RFC 8839 section 5.4)."""


@dataclass(frozen=True, slots=True)
class Offer:
    """An offer fit for aiortc: its `text`, its parsed `media` sections and the H.264 `profile` to answer."""

    text: str
    media: list[MediaDescription]
    profile: str

    @property
    def ufrags(self) -> frozenset[str]:
        """The user fragments of its ICE credentials."""
        return frozenset(str(media.ice.usernameFragment) for media in self.media if media.ice is not None)


def check_offer(text: str, role: Role = WHIP) -> Offer:
    """Parse an offer and find the H.264 profile of its first video; HTTP 400 or 422 when it is of no use."""
    text = _without_useless_candidates(text)
    try:
        offer = SessionDescription.parse(text)
    except Exception as error:  # aiortc's parser raises whatever its code runs into
        raise web.HTTPBadRequest(text="The body is not a valid session description (RFC 8866).") from error
    mids = [media.rtp.muxId for media in offer.media]
    if not mids or len(set(mids)) != len(mids):
        raise web.HTTPBadRequest(text="The offer needs media sections, each with an identifier (a=mid) of its own.")
    if any(media.kind not in ("audio", "video") for media in offer.media):
        raise web.HTTPUnprocessableEntity(text=f"This {role.server} takes audio and video only, no data channels.")
    if not all(_secured(media) for media in offer.media):
        raise web.HTTPBadRequest(
            text="Every media section needs ICE credentials, a DTLS fingerprint and role, and a=rtcp-mux."
        )
    bundles = [group.items for group in offer.group if group.semantic == "BUNDLE"]
    if len(mids) > 1 and (len(bundles) != 1 or set(bundles[0]) != set(mids)):
        raise web.HTTPUnprocessableEntity(text="The offer must bundle all its media sections (a=group:BUNDLE).")
    video = next((media for media in offer.media if media.kind == "video"), None)
    profile = offered_h264(video) if video is not None else None
    if video is None or profile is None:
        raise web.HTTPUnprocessableEntity(
            text="Offer H.264 video of Baseline or Constrained Baseline profile with packetization-mode=1."
        )
    if video.direction not in (None, *role.offered):
        raise web.HTTPUnprocessableEntity(text=f"{role.refused}, but the video is {video.direction}.")
    # All transceivers share one transport from the start. Told of the bundle, aiortc would do it again, and stop
    # that very transport where the bundle names another section first.
    lines = [line for line in text.splitlines() if not line.startswith("a=group:BUNDLE")]
    return Offer("\r\n".join(lines) + "\r\n", offer.media, profile)


def _secured(media: MediaDescription) -> bool:
    dtls, ice = media.dtls, media.ice
    credentials = ice is not None and bool(ice.usernameFragment and ice.password)
    return credentials and dtls is not None and bool(dtls.fingerprints) and bool(media.rtcp_mux)


def _without_useless_candidates(text: str) -> str:
    """An offer without the candidates that aioice cannot use, and never with an end of them.

    Names would have to be resolved first (browsers hide addresses behind mDNS), for which the answer need not
    wait: the sender's own checks reveal its address (peer-reflexive candidates, RFC 8445 section 7.3.1.3). For
    those to come in time the list stays open; `connect_timeout` ends what never connects.
    """
    lines = [
        line
        for line in text.splitlines()
        if line.strip() != "a=end-of-candidates" and (not line.startswith(CANDIDATE) or usable(line))
    ]
    return "\r\n".join(lines) + "\r\n"


def usable(line: str) -> bool:
    """Whether a candidate line gives a UDP address of component 1 in numbers."""
    try:
        candidate = candidate_from_sdp(line.removeprefix(CANDIDATE))
        address = ipaddress.ip_address(candidate.ip)
    except (ValueError, AssertionError, IndexError):
        return False
    numbers_fit = 0 < candidate.port < 65536 and 0 <= candidate.priority < 2**32
    return (
        candidate.component == 1 and candidate.protocol.lower() == "udp" and numbers_fit and not address.is_multicast
    )
