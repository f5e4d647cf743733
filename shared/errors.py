"""The one exception that a user is meant to read."""

from __future__ import annotations


class SemcallError(Exception):
    """Something the user can mend: bad input, a missing device, a refusing peer.

    The message is one sentence that says what is wrong and what to do. The command line prints it without a
    traceback and exits with code 2.
    """
