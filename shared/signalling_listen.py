"""Listening for calls: the address, its certificate, and what is wrong with them in one sentence."""

from __future__ import annotations

import errno
import re
import socket
import ssl
from pathlib import Path

from shared.errors import SemcallError


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine can reach a server that listens on `host`."""
    return host in ("127.0.0.1", "localhost", "::1")


def parse_listen(text: str, option: str = "--listen") -> tuple[str, int]:
    """`[HOST:]PORT`, an IPv6 host in brackets; without a host, 127.0.0.1. Raises SemcallError for anything else,
    which names the `option`.

    >>> parse_listen("8788"), parse_listen("0.0.0.0:8788"), parse_listen("[::]:0")
    (('127.0.0.1', 8788), ('0.0.0.0', 8788), ('::', 0))
    """
    match = re.fullmatch(r"(?:(\[[0-9a-fA-F:.]+\]|[^\s:\[\]/@]+):)?(\d{1,5})", text.strip())
    if not match or int(match[2]) > 65535:
        raise SemcallError(f"{option} {text} is not [HOST:]PORT: write for example 8788, or 0.0.0.0:8788.")
    return (match[1] or "127.0.0.1").strip("[]"), int(match[2])


def server_tls(cert: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """A server's TLS from PEM files (RFC 7468), or None where there is no `cert`; no `key`: it is in `cert` too.

    Raises SemcallError where they cannot be read or do not belong together.
    """
    if cert is None:
        if key is not None:
            raise SemcallError("--key needs a certificate: give that too, with --cert.")
        return None
    for option, path in (("--cert", cert), ("--key", key)):
        try:
            if path is not None:
                path.read_bytes()
        except OSError as error:
            raise SemcallError(f"{option} {path} cannot be read ({error.strerror or error}).") from error
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(cert, key, password=_no_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise SemcallError(f"The key in {key or cert} is not that of the certificate in {cert}.") from error
        where = f"{cert} and {key}" if key else str(cert)
        raise SemcallError(
            f"{where} do not hold a certificate and its key in PEM: check --cert and --key."
        ) from error
    return context


def _no_password() -> str:
    # OpenSSL would ask on the terminal, and wait.
    raise SemcallError("The key is encrypted: give --key one without a password (`openssl pkey` writes it).")


def bind_problem(host: str, port: int, error: Exception, port_option: str, host_option: str) -> str:
    """Why nobody can listen there, with the options that choose another place."""
    if isinstance(error, OSError) and not isinstance(error, socket.gaierror):
        if error.errno == errno.EADDRINUSE:
            return f"Port {port} on {host} is in use: another semcall? Choose another with {port_option}."
        if error.errno in (errno.EACCES, errno.EPERM):
            return f"Port {port} on {host} is not allowed: choose one above 1023 with {port_option}."
    if not 0 <= port < 65536:
        return f"There is no port {port}: choose one from 1 to 65535 with {port_option}."
    return (
        f"{host} is not an address of this machine: use 127.0.0.1, 0.0.0.0 for all, or one of its own with "
        f"{host_option}."
    )


def reachable(host: str) -> str:
    """The host to put in the URL: for "all addresses" the one that leads to the network, else loopback."""
    family = {"0.0.0.0": socket.AF_INET, "": socket.AF_INET, "::": socket.AF_INET6}.get(host)
    if family is None:
        return host
    probe = "2001:db8::1" if family == socket.AF_INET6 else "192.0.2.1"  # documentation addresses; nothing is sent
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect((probe, 9))
            return str(sock.getsockname()[0])
    except OSError:
        return "::1" if family == socket.AF_INET6 else "127.0.0.1"
