"""WHEP over real sockets, and what both protocols share: TLS, tokens, replaced calls, ICE servers, bad requests."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import json
import os
import signal
import ssl
import sys
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aioice import stun
from command import call
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st
from test_whip import (
    FRAGMENT,
    SmallTrack,
    assert_one_sentence,
    calling,
    free_port,
    http,
    offer_text,
    post,
    receiving,
    refusal,
    serving,
)
from yarl import URL
from zeroconf.asyncio import AsyncServiceInfo

from shared.errors import SemcallError
from shared.peer import close_peer, create_peer, prefer_h264, video_transceiver, wait_state
from shared.signalling_discovery import SERVICE, Announcement, Found, find_receivers, look_around, read_service
from shared.signalling_http import MAX_BODY, SDP
from shared.signalling_links import MAX_SERVERS, format_link, parse_links
from shared.signalling_listen import parse_listen, server_tls
from shared.token import is_token, new_token
from shared.whep_client import WhepClient, WhepViewer
from shared.whep_server import WhepServer
from shared.whip_client import WhipClient

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 30.0


class Sender:
    """A WHEP endpoint that plays a small picture and remembers what happened to it."""

    def __init__(self, **options):
        self.calls, self.ends = [], 0
        self.server = WhepServer(self.on_call, on_end=self.on_end, **options)

    async def on_call(self, peer):
        transceiver = video_transceiver(peer)
        assert transceiver.direction == "sendonly"
        transceiver.sender.replaceTrack(SmallTrack())
        self.calls.append(peer)

    def on_end(self):
        self.ends += 1


@contextlib.asynccontextmanager
async def playing(**options):
    sender = Sender(**options)
    await sender.server.start("127.0.0.1", 0)
    try:
        yield sender
    finally:
        await sender.server.stop()


class Audience:
    """A viewer that remembers what happened to it."""

    def __init__(self, url, **options):
        self.tracks, self.ended = asyncio.Queue(), asyncio.Event()
        self.begins = self.ends = self.waits = 0
        self.viewer = WhepViewer(url, self.on_call, on_end=self.on_end, **options)

    async def on_call(self, peer):
        assert peer.localDescription is None
        assert video_transceiver(peer).direction == "recvonly"
        self.begins += 1
        peer.on("track", self.tracks.put_nowait)

    def on_end(self):
        self.ends += 1
        self.ended.set()

    def on_wait(self):
        self.waits += 1

    async def watch(self, **options):
        await self.viewer.begin(self.on_wait, **options)
        assert await self.viewer.begun(PATIENCE)

    async def frame(self):
        track = await asyncio.wait_for(self.tracks.get(), 10)
        return await asyncio.wait_for(track.recv(), 10)


def one_sentence(error):
    text = str(error.value)
    assert text.endswith(".")
    assert "\n" not in text
    return text


# Calls


async def test_a_viewer_sees_frames_and_hangs_up():
    async with playing(token="s3cret") as sender:
        audience = Audience(sender.server.url, token="s3cret")
        await audience.watch()
        frame = await audience.frame()
        assert (frame.width, frame.height) == (160, 120)
        assert sender.server.busy
        answer = sender.calls[0].localDescription.sdp
        assert "a=sendonly" in answer
        assert "VP8" not in answer
        await audience.viewer.stop()
        assert not sender.server.busy  # DELETE is over
        assert (audience.begins, audience.ends, audience.viewer.end) == (1, 1, "")
        await audience.viewer.stop()
        assert audience.ends == 1
    assert sender.ends == 1


async def test_the_end_is_told_when_the_sender_hangs_up():
    async with playing() as sender:
        audience = Audience(sender.server.url)
        await audience.watch()
        await audience.frame()
        await sender.server.end_call()
        await asyncio.wait_for(audience.ended.wait(), 10)
        assert audience.viewer.end == "The sender has hung up."
        await audience.viewer.stop()
        assert audience.ends == 1


async def test_one_viewer_at_a_time_and_the_next_after_it():
    async with playing() as sender:
        first, second = Audience(sender.server.url), Audience(sender.server.url)
        await first.watch()
        with pytest.raises(SemcallError, match="busy with another call"):
            await second.watch()
        await first.viewer.stop()
        third = Audience(sender.server.url)
        await third.watch()
        await third.frame()
        await third.viewer.stop()
        await second.viewer.stop()
        assert second.begins == second.ends == 1
    assert sender.ends == len(sender.calls) == 2


async def test_the_sender_may_come_later():
    port = free_port()
    audience = Audience(f"http://127.0.0.1:{port}/whep")
    await audience.viewer.begin(audience.on_wait)
    while not audience.waits:
        assert not await audience.viewer.begun(0.05)
    sender = Sender()
    await sender.server.start("127.0.0.1", port)
    assert await audience.viewer.begun(PATIENCE)
    assert audience.waits == 1
    await audience.viewer.stop()
    await sender.server.stop()


async def test_nobody_to_watch():
    audience = Audience(f"http://127.0.0.1:{free_port()}/whep")
    with pytest.raises(SemcallError, match="start `semcall send --listen`") as error:
        await audience.watch(timeout=0.4)
    assert "No sender answers" in one_sentence(error)
    await audience.viewer.stop()
    assert audience.begins == audience.ends == 0


async def test_a_viewer_that_gives_up_while_it_waits():
    audience = Audience(f"http://127.0.0.1:{free_port()}/whep")
    await audience.viewer.begin(audience.on_wait)
    assert not await audience.viewer.begun(0.1)
    await audience.viewer.stop()
    with pytest.raises(SemcallError, match="given up before"):
        await audience.viewer.begun(5)


async def test_a_call_that_is_ended_while_it_connects():
    """The receiver's watchdog may hang up before ICE gives up."""
    asked = asyncio.Event()

    async def never(request):
        if request.method == "POST":
            asked.set()
            await asyncio.sleep(30)
        return web.Response()

    async with serving(never) as url:
        audience = Audience(url)
        await audience.viewer.begin(audience.on_wait)
        await asked.wait()
        await audience.viewer.end_call()
        with pytest.raises(SemcallError, match="given up before") as error:
            await audience.viewer.begun(5)
        one_sentence(error)
    assert audience.begins == audience.ends == 1


async def test_a_new_viewer_replaces_the_old_where_asked():
    async with playing(replace=True) as sender:
        first, second = Audience(sender.server.url), Audience(sender.server.url)
        await first.watch()
        await second.watch()
        await asyncio.wait_for(first.ended.wait(), 10)
        await second.frame()
        assert first.viewer.end == "The sender has hung up."
        await second.viewer.stop()
        await first.viewer.stop()
    assert sender.ends == len(sender.calls) == 2


async def test_a_new_caller_replaces_the_old_and_offers_at_once_leave_one_call():
    async with receiving(replace=True) as receiver, calling(receiver.server.url) as (peer, _):
        await receiver.frame()
        offers = [await offer_text() for _ in range(4)]
        replies = await asyncio.gather(*(post(receiver.server.url, offer) for offer in offers))
        statuses = [status for status, _, _ in replies]
        assert set(statuses) <= {201, 503}
        assert statuses.count(201) >= 1
        assert receiver.server.busy
        assert await asyncio.wait_for(wait_state(peer, "closed"), 10) == "closed"
    assert receiver.ends == len(receiver.calls)


# The endpoint's HTTP


async def test_offers_that_a_sender_cannot_take():
    async with playing() as sender:
        url = sender.server.url
        wanted = await offer_text("recvonly")
        for offer, status, told in (
            (await offer_text("sendonly"), 422, "only sends"),
            (wanted.replace("a=recvonly", "a=inactive"), 422, "only sends"),
            (wanted.replace("H264", "H265"), 422, "H.264"),
            ("hello", 400, ""),
            ("x" * (MAX_BODY + 1), 413, "64 KiB"),
        ):
            reply = await post(url, offer)
            assert reply[0] == status
            assert told in reply[2]
            assert_one_sentence(reply)
        assert (await http("POST", url, wanted, Content_Type="text/plain"))[0] == 415
        greeting = await http("GET", url)
        assert greeting[0] == 405
        assert "semcall receive --from" in greeting[2]
        assert sender.calls == []


async def test_audio_is_answered_inactive():
    async with playing() as sender:
        status, headers, answer = await post(
            sender.server.url, await offer_text("recvonly", kinds=("audio", "video"))
        )
        assert status == 201
        assert headers["Location"].startswith("/whep/")
        assert [line for line in answer.splitlines() if line in ("a=inactive", "a=sendonly")] == [
            "a=inactive",
            "a=sendonly",
        ]


async def test_a_viewer_without_the_token_sees_nothing():
    async with playing(token="s3cret") as sender:
        offer = await offer_text("recvonly")
        for shown in ({}, {"Authorization": "Bearer s3cre"}, {"Authorization": "Basic s3cret"}):
            reply = await post(sender.server.url, offer, **shown)
            assert reply[0] == 401
            assert reply[1]["WWW-Authenticate"].startswith("Bearer")
            assert_one_sentence(reply)
        for token, told in ((None, "wants a token"), ("wrong", "does not accept this token")):
            audience = Audience(sender.server.url, token=token)
            with pytest.raises(SemcallError, match=told):
                await audience.watch()
            await audience.viewer.stop()
        assert sender.calls == []


async def test_candidates_of_another_ice_generation_are_refused():
    async with playing() as sender:
        offer = await offer_text("recvonly")
        _, headers, _ = await post(sender.server.url, offer)
        session, etag = str(URL(sender.server.url).join(URL(headers["Location"]))), headers["ETag"]
        ufrag = next(line for line in offer.splitlines() if line.startswith("a=ice-ufrag"))
        for body, tag, status in (
            (ufrag, etag, 204),
            (ufrag, f'"other", {etag}', 204),
            (ufrag, f"W/{etag}", 412),
            ("a=ice-ufrag:new\r\na=ice-pwd:0123456789012345678901", etag, 422),
            ("a=ice-ufrag:new\r\na=ice-pwd:0123456789012345678901", "*", 422),
        ):
            reply = await http("PATCH", session, body + "\r\n", Content_Type=FRAGMENT, If_Match=tag)
            assert reply[0] == status, (body, tag)
        assert sender.server.busy  # a failed restart leaves the session (RFC 9725 section 4.3.3)


async def test_ice_servers_are_named_to_who_may_call_only():
    turn = "turn:me:pass%22word@192.0.2.1:3478"
    async with receiving(token="s3cret", ice_servers=["stun:192.0.2.1", turn]) as receiver:
        _, headers, _ = await http("OPTIONS", receiver.server.url)
        assert "Link" not in headers
        for shown in ("s3cret", "wrong"):
            client = WhipClient(receiver.server.url, shown)
            await client.wait_for_endpoint(5)
            assert client.ice_servers == (("stun:192.0.2.1", turn) if shown == "s3cret" else ())


async def test_the_ice_server_that_an_endpoint_names_is_asked():
    asked = []

    class Stun(asyncio.DatagramProtocol):
        def connection_made(self, transport):
            self.transport = transport

        def datagram_received(self, data, address):
            query = stun.parse_message(data)
            asked.append(address)
            reply = stun.Message(query.message_method, stun.Class.RESPONSE, query.transaction_id)
            reply.attributes["XOR-MAPPED-ADDRESS"] = ("192.0.2.99", 1234)
            self.transport.sendto(bytes(reply), address)

    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Stun, local_addr=("0.0.0.0", 0))
    named = f"stun:127.0.0.1:{transport.get_extra_info('sockname')[1]}"
    async with playing(ice_servers=[named]) as sender:
        sender.server._ice_servers = ()  # it names the server and does not ask it itself
        audience = Audience(sender.server.url)
        await audience.watch()
        assert audience.viewer.named == (named,)
        await audience.frame()
        await audience.viewer.stop()
    transport.close()
    assert asked


# The client against other servers


async def test_refusals_of_other_senders():
    async def answer(request):
        kind, body, status = replies[-1]
        return web.Response(status=status, content_type=kind, body=body.encode())

    replies = [("", "", 0)]
    async with serving(answer) as url:
        for kind, body, status, told in (
            (SDP, "v=0\r\n", 406, "wants to make the offer itself"),
            ("text/plain", "no such codec", 406, "refuses the call (no such codec)"),
            ("application/json", json.dumps({"error": "nobody is publishing"}), 404, "(nobody is publishing)"),
            ("application/problem+json", json.dumps({"title": "Busy", "detail": "Later."}), 503, "(Later)"),
            ("application/problem+json", "[" * 100_000, 503, "busy with another call:"),
            ("application/json", '{"error": {"code": 7}}', 500, "(HTTP 500): try again"),
            ("text/plain", "Paid accounts only.", 403, "wants a token (Paid accounts only)"),
            ("text/html", "<p>", 302, "has moved (HTTP 302)"),
            ("text/html", "<p>", 404, "ends in /whep"),
            (SDP, "hello", 201, "refuses H.264 video"),
        ):
            replies.append((kind, body, status))
            peer, client = create_peer(), WhepClient(url)
            prefer_h264(peer.addTransceiver("video", direction="recvonly"))
            with pytest.raises(SemcallError) as error:
                await client.play(peer)
            assert told in one_sentence(error)
            await close_peer(peer)


@pytest.mark.parametrize("status", [307, 308])
async def test_the_token_stays_with_the_origin_that_the_user_named(status):
    shown = {}

    async def note(request):
        shown.setdefault(request.method, []).append(request.headers.get("Authorization"))
        if request.method == "DELETE":
            return web.Response()
        return web.Response(status=201, content_type=SDP, body=b"v=0\r\n", headers={"Location": "/session"})

    async with serving(note) as elsewhere:

        async def near(request):
            shown.setdefault("here", []).append(request.headers.get("Authorization"))
            to = "/again" if request.path == "/whip" else elsewhere
            return web.Response(status=status, headers={"Location": to})

        async with serving(near) as url:
            assert "refuses H.264" in await refusal(url, "s3cret")
    assert shown == {"here": ["Bearer s3cret"] * 2, "POST": [None], "DELETE": [None]}


@pytest.mark.parametrize("location", ["file:///etc/passwd", "http://[", "ftp://127.0.0.1/whip"])
async def test_redirects_to_nowhere(location):
    async def away(request):
        return web.Response(status=307, headers={"Location": location})

    async with serving(away) as url:
        assert "no address of the web" in await refusal(url)


# ICE servers in headers


@pytest.mark.parametrize("server", ["stun:a.example:3478", "turn:u%3A%22%5C:p%40%2C%3B@b.example?transport=tcp"])
def test_links_are_read_as_they_are_written(server):
    assert parse_links([format_link(server)]) == (server,)
    assert parse_links([f"{format_link('stun:other')}, {format_link(server)}"]) == ("stun:other", server)


@given(st.lists(st.text(st.sampled_from('<>;,="\\ :?@ausrel-icetunvp%\t'), max_size=80), max_size=4))
def test_strange_links_do_no_harm(headers):
    for server in parse_links(headers):
        assert create_servers(server)


@given(st.text(max_size=60), st.text(max_size=20))
def test_strange_names_in_links_do_no_harm(address, name):
    for server in parse_links([f'<turn:{address}>; rel="ice-server"; username="{name}"; credential="{name}"']):
        assert create_servers(server)


def create_servers(server):
    return server.startswith(("stun", "turn")) and format_link(server)


def test_only_so_many_servers_are_taken():
    assert len(parse_links([format_link(f"stun:host{index}") for index in range(99)])) == MAX_SERVERS


# Bad requests


BYTES = st.binary(max_size=40).map(lambda value: bytes(byte for byte in value if byte not in b"\r\n\0"))
BODIES = st.one_of(
    st.binary(max_size=200),
    st.lists(
        st.sampled_from(
            [
                b"a=mid:0",
                b"a=candidate:1 1 udp 1 192.0.2.1 9 typ host",
                b"a=candidate:1 1 udp 99999999999 ::1%x -1 typ host",
                b"a=candidate:",
                b"a=ice-ufrag:",
                b"a=end-of-candidates",
                b"m=video",
                b"\xff\xfe",
            ]
        ),
        max_size=6,
    ).map(b"\r\n".join),
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    method=st.sampled_from([b"POST", b"PATCH", b"DELETE", b"OPTIONS", b"GET", b"PUT"]),
    at_session=st.booleans(),
    token=st.one_of(st.sampled_from([b"Bearer s3cret", b"bearer  s3cret", b"Bearer", b""]), BYTES),
    kind=st.one_of(st.sampled_from([SDP.encode(), FRAGMENT.encode(), b"application/sdp; charset=x"]), BYTES),
    tag=st.one_of(st.sampled_from([b"*", b'"', b"ETAG", b"W/ETAG", b",,,"]), BYTES),
    origin=st.one_of(st.sampled_from([b"http://localhost", b"null", b"http://["]), BYTES),
    body=BODIES,
)
def test_no_request_breaks_the_endpoint(method, at_session, token, kind, tag, origin, body):
    async def run():
        async with receiving(token="s3cret") as receiver:
            url = URL(receiver.server.url)
            _, headers, _ = await post(str(url), await offer_text(), Authorization="Bearer s3cret")
            path = (headers["Location"] if at_session else url.path).encode()
            lines = [
                method + b" " + path + b" HTTP/1.1",
                b"Host: x",
                b"Connection: close",
                b"Authorization: " + token,
                b"Content-Type: " + kind,
                b"If-Match: " + tag.replace(b"ETAG", headers["ETag"].encode()),
                b"Origin: " + origin,
                b"Content-Length: %d" % len(body),
            ]
            reader, writer = await asyncio.open_connection("127.0.0.1", url.port)
            writer.write(b"\r\n".join(lines) + b"\r\n\r\n" + body)
            reply = await asyncio.wait_for(reader.read(), 20)
            writer.close()
            status = int(reply.split()[1])
            # 501 and the like come for what is no HTTP, 503 for a second offer.
            assert status < 500 or status == 503, reply
            right = token.split() in ([b"Bearer", b"s3cret"], [b"bearer", b"s3cret"])
            if method in (b"PATCH", b"DELETE", b"POST") and not right:
                assert status >= 400
                assert receiver.server.busy

    asyncio.run(run())


# Receivers on the local network


async def test_a_receiver_is_found_until_it_says_goodbye():
    loopback = ["127.0.0.1"]
    announcement = Announcement("https://127.0.0.1:4321/whip", name="lab.table 7\n", interfaces=loopback)
    await announcement.start()
    try:
        ours = Found("lab-table 7-", "https://127.0.0.1:4321/whip")
        for _ in range(10):
            if ours in (found := await find_receivers(1.0, loopback)):
                break
        else:
            pytest.skip(f"no multicast on this machine's loopback: only {found} found")
    finally:
        await announcement.stop()
    assert ours not in await find_receivers(0.5, loopback)
    await announcement.stop()


@pytest.mark.parametrize(
    ("found", "token", "told", "called"),
    [
        (0, "s3cret", [], "local"),
        (1, None, ["Call one with --to"], "local"),
        (1, "s3cret", ["Calling lab0 at http://192.0.2.10:8787/whip"], "http://192.0.2.10:8787/whip"),
        (2, "s3cret", ["lab0 at", "lab1 at", "choose one with --to"], None),
    ],
)
async def test_a_sender_takes_the_only_receiver_of_the_network(found, token, told, called, monkeypatch):
    async def find():
        return [Found(f"lab{index}", f"http://192.0.2.1{index}:8787/whip") for index in range(found)]

    monkeypatch.setattr("shared.signalling_discovery.find_receivers", find)
    client, said = WhipClient(f"http://127.0.0.1:{free_port()}/whip", token), []
    try:
        chosen = (await look_around(client, token, said.append)).name
    except SemcallError as error:
        chosen = None
        said.append(str(error))
    assert chosen == (client.name if called == "local" else called)
    assert all(any(text in line for line in said) for text in told)


async def test_a_receiver_on_this_machine_is_taken_without_a_look_around(monkeypatch):
    monkeypatch.setattr("shared.signalling_discovery.find_receivers", lambda: pytest.fail("asked the network"))
    async with receiving() as receiver:
        client = WhipClient(receiver.server.url)
        assert await look_around(client, None, pytest.fail) is client


async def test_an_address_by_name_is_not_announced():
    announcement = Announcement("http://localhost:4321/whip", interfaces=["127.0.0.1"])
    await announcement.start()
    await announcement._task
    assert announcement._zeroconf is None
    await announcement.stop()


async def test_without_a_network_nobody_is_found_and_nothing_breaks():
    nowhere = ["192.0.2.213"]
    announcement = Announcement("http://127.0.0.1:4321/whip", interfaces=nowhere)
    await announcement.start()
    await announcement._task
    await announcement.stop()
    assert await find_receivers(0.1, nowhere) == []


@given(
    name=st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=12),
    port=st.integers(0, 65535),
    address=st.sampled_from(["192.0.2.1", "2001:db8::1", "fe80::1"]),
    path=st.one_of(st.sampled_from(["/whip", "/", "//evil.example/x", "/a b", "/a?b", "/\x1b"]), st.text(max_size=9)),
    scheme=st.sampled_from(["http", "https", "file", ""]),
)
def test_what_the_network_says_is_read_with_care(name, port, address, path, scheme):
    properties = {"path": path.encode("utf-8", "replace"), "scheme": scheme}
    info = AsyncServiceInfo(
        SERVICE, f"x{name}.{SERVICE}", port=port, parsed_addresses=[address], properties=properties
    )
    found = read_service(info)
    if found is not None:
        assert found.name.isprintable()
        assert URL(found.url).host == address
        assert URL(found.url).scheme in ("http", "https")
        assert found.url.isprintable()
        WhipClient(found.url)


# Tokens, addresses, certificates


def test_new_tokens_can_be_shown_and_pasted():
    tokens = {new_token() for _ in range(500)}
    assert len(tokens) == 500
    assert all(is_token(token) and not token.startswith("-") and len(token) == 12 for token in tokens)


@given(st.text())
def test_any_text_is_a_token_or_not(text):
    assert is_token(text) == (bool(text) and all("!" <= sign <= "~" for sign in text))


@given(st.text(max_size=30))
def test_any_text_is_a_place_or_a_sentence(text):
    try:
        host, port = parse_listen(text)
    except SemcallError:
        return
    assert host
    assert 0 <= port <= 65535


def write_certificate(folder, name="cert"):
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "semcall test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = folder / f"{name}.pem", folder / f"{name}.key"
    cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(pem_key(key, serialization.NoEncryption()))
    (folder / f"{name}-encrypted.key").write_bytes(pem_key(key, serialization.BestAvailableEncryption(b"open")))
    (folder / f"{name}-both.pem").write_bytes(cert_file.read_bytes() + key_file.read_bytes())
    return cert_file, key_file


def pem_key(key, encryption):
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


async def test_calls_over_tls(tmp_path):
    cert, _ = write_certificate(tmp_path)
    async with receiving(tls=server_tls(tmp_path / "cert-both.pem", None)) as receiver:
        url = receiver.server.url
        assert url.startswith("https://127.0.0.1:")
        trusting = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=str(cert)))
        async with aiohttp.ClientSession(connector=trusting) as session:
            headers = {"Content-Type": SDP}
            async with session.post(url, data=await offer_text(), headers=headers) as reply:
                assert reply.status == 201
        assert "check the certificate" in await refusal(url)  # nobody vouches for it


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--cert", "gone.pem"), "gone.pem cannot be read (No such file or directory)"),
        (("--cert", "cert.pem", "--key", "gone.key"), "--key"),
        (("--cert", "."), "cannot be read"),
        (("--key", "cert.key"), "--key needs a certificate"),
        (("--cert", "cert.pem"), "check --cert and --key"),
        (("--cert", "cert.pem", "--key", "other.key"), "is not that of the certificate"),
        (("--cert", "cert.key", "--key", "cert.key"), "check --cert and --key"),
        (("--cert", "cert.pem", "--key", "cert-encrypted.key"), "encrypted"),
    ],
)
@pytest.mark.parametrize("command", ["receive", "send"])
def test_certificates_that_are_none(command, arguments, told, monkeypatch, capfd, tmp_path):
    write_certificate(tmp_path)
    write_certificate(tmp_path, "other")
    monkeypatch.chdir(tmp_path)
    start = {
        "receive": ("receive", "--headless", "--restore", "off", "--port", 0),
        "send": ("send", "--source", "demo", "--face", "off", "--listen", 0),
    }
    assert call(monkeypatch, *start[command], *arguments) == 2
    said = capfd.readouterr().err
    assert said.startswith("semcall: ")
    assert said.count("\n") == 1
    assert told in said


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("send", "--listen", "here"), "--listen here is not [HOST:]PORT"),
        (("send", "--listen", "70000"), "is not [HOST:]PORT"),
        (("send", "--listen", "192.0.2.7:0", "--source", "demo"), "one of its own with --listen"),
        (("send", "--listen", "0", "--to", "http://127.0.0.1/whip"), "--to means nothing with --listen"),
        (("send", "--listen", "0", "--timeout", "5"), "--timeout means nothing with --listen"),
        (("send", "--replace"), "--replace means nothing without --listen"),
        (("send", "--once"), "--once means nothing without --listen"),
        (("send", "--listen", "0", "--token", "two words", "--source", "demo"), "choose another with --token"),
        (("receive", "--from", "nonsense", "--headless"), "http://HOST:8787/whep"),
        (("receive", "--from", "http://127.0.0.1/", "--replace"), "--replace means nothing with --from"),
        (("receive", "--from", "http://127.0.0.1/", "--port", "1"), "--port means nothing with --from"),
        (("receive", "--force", "--headless"), "--force means nothing without --record"),
        (("receive", "--from", "http://127.0.0.1/", "--token", "two words", "--headless"), "as the sender shows it"),
        (("receive", "--from", "http://127.0.0.1/", "--ice-server", "x", "--headless"), "is no ICE server"),
    ],
)
def test_what_the_command_line_says(arguments, told, monkeypatch, capfd):
    more = ("--face", "off") if arguments[0] == "send" else ("--restore", "off")
    assert call(monkeypatch, *arguments, *more) == 2
    said = capfd.readouterr().err
    assert said.startswith("semcall: ")
    assert said.count("\n") == 1
    assert told in said


# Whole calls


class Program:
    """A `semcall` process and what it says."""

    def __init__(self, process):
        self.process, self.said = process, ""

    @classmethod
    async def start(cls, *arguments, **environment):
        hidden = ("DISPLAY", "WAYLAND_DISPLAY")
        clean = {name: value for name, value in os.environ.items() if name not in hidden}
        return cls(
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "semcall", *map(str, arguments)),
                cwd=ROOT,
                env=clean | {"PYTHONUNBUFFERED": "1"} | environment,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
        )

    async def until(self, text):
        async with asyncio.timeout(PATIENCE):
            while text not in self.said:
                line = (await self.process.stdout.readline()).decode()
                assert line, self.said
                self.said += line
        return next(line for line in self.said.splitlines() if text in line)

    async def ends(self):
        async with asyncio.timeout(PATIENCE):
            self.said += (await self.process.stdout.read()).decode()
            return await self.process.wait()

    async def kill(self):
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
async def test_send_listen_and_receive_from_over_tls(tmp_path):
    cert, key = write_certificate(tmp_path)
    small = ("--source", "demo", "--size", "320x192", "--face", "off")
    tls = ("--cert", cert, "--key", key, "--token", "s3cret")
    sending = await Program.start("send", *small, "--listen", "127.0.0.1:0", *tls)
    programs = [sending]
    try:
        line = await sending.until("Watch it with:")
        watch = line.split("semcall ")[-1].split()
        assert watch[:2] == ["receive", "--from"]
        assert watch[2].startswith("https://127.0.0.1:")
        assert watch[3:] == ["--token", "s3cret"]
        for ended_by in ("viewer", "sender"):
            shown = tmp_path / f"{ended_by}.jsonl"
            headless = ("--headless", "--restore", "off", "--stats", shown)
            viewing = await Program.start(*watch, *headless, SSL_CERT_FILE=str(cert))
            programs.append(viewing)
            await viewing.until("Connected to https://")
            await viewing.until("320x192")
            if ended_by == "viewer":
                viewing.process.send_signal(signal.SIGINT)
                assert await viewing.ends() == 0, viewing.said
                await sending.until("The viewer has hung up. Waiting for a viewer at https://")
            else:
                sending.process.send_signal(signal.SIGINT)
                assert await sending.ends() == 0, sending.said
                assert sending.said.endswith("Ended.\n")
                assert await viewing.ends() == 0, viewing.said
                assert "The sender has hung up.\n" in viewing.said
            assert len(shown.read_text().splitlines()) > 3
    finally:
        for program in programs:
            await program.kill()


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
async def test_all_addresses_get_a_token_and_once_is_once(tmp_path):
    small = ("--source", "demo", "--size", "320x192", "--face", "off")
    sending = await Program.start("send", *small, "--listen", "0.0.0.0:0", "--once", "--seconds", 2)
    programs = [sending]
    try:
        watch = (await sending.until("Watch it with:")).split("semcall ")[-1].split()
        assert watch[3] == "--token"
        assert is_token(watch[4])
        url = URL(watch[2]).with_host("127.0.0.1")
        assert (await post(str(url), await offer_text("recvonly")))[0] == 401
        viewing = await Program.start(*watch[:2], url, *watch[3:], "--headless", "--restore", "off")
        programs.append(viewing)
        assert await sending.ends() == 0, sending.said
        assert sending.said.endswith("The call has ended.\n")
        assert await viewing.ends() == 0, viewing.said
        assert "The sender has hung up.\n" in viewing.said
    finally:
        for program in programs:
            await program.kill()
