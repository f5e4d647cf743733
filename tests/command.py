"""The command line as a function, in this process."""

from __future__ import annotations

import sys

import pytest

import semcall


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Run `semcall ARGUMENTS`; returns its exit code."""
    monkeypatch.setattr(sys, "argv", ["semcall", *map(str, arguments)])
    try:
        semcall.main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0
