"""The secret that a caller shows and a receiver asks for: a bearer token (RFC 6750)."""

from __future__ import annotations

import re
import secrets


def is_token(text: str) -> bool:
    """Whether `text` can be sent as `Authorization: Bearer text`: visible ASCII characters, at least one."""
    return re.fullmatch(r"[\x21-\x7e]+", text) is not None


def new_token() -> str:
    """A token of 72 random bits that no command line takes for an option."""
    while (token := secrets.token_urlsafe(9)).startswith("-"):
        pass
    return token
