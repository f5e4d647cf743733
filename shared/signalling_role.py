"""What WHIP and WHEP differ in: who answers, which way the video goes, and how that is said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Role:
    """One of the two protocols, seen from the end that answers calls.

    `server`: what that end is; `path`: its usual path; `command`: what starts one of ours; `direction`: of its video
    in the answer (RFC 8866 section 6.7); `offered`: the directions of an offer that fit it; `refused`: an offer that
    does not, as part of a sentence; `greeting`: for who comes with a browser; `need`: what a refusing end must do.
    """

    protocol: str
    server: str
    path: str
    command: str
    direction: str
    offered: tuple[str, ...]
    refused: str
    greeting: str
    need: str


WHIP: Final = Role(
    protocol="WHIP",
    server="receiver",
    path="/whip",
    command="semcall receive",
    direction="recvonly",
    offered=("sendonly", "sendrecv"),
    refused="This receiver only receives",
    greeting="This is a semcall receiver: call it with `semcall send --to` this address, "
    "or from any other WHIP sender such as OBS.",
    need="it must be able to receive H.264 video",
)
"""The caller publishes, the endpoint receives (RFC 9725)."""

WHEP: Final = Role(
    protocol="WHEP",
    server="sender",
    path="/whep",
    command="semcall send --listen",
    direction="sendonly",
    offered=("recvonly", "sendrecv"),
    refused="This sender only sends",
    greeting="This is a semcall sender: watch it with `semcall receive --from` this address, "
    "or with any other WHEP player.",
    need="it must have H.264 video to send",
)
"""The caller watches, the endpoint sends (draft-ietf-wish-whep)."""
