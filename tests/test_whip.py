"""WHIP over real sockets: the endpoint, the client, and what each says when the other misbehaves."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
from fractions import Fraction

import aiohttp
import av
import pytest
from aiohttp import web
from aiortc import RTCSessionDescription, VideoStreamTrack
from chromium import browsing, find_chromium
from hypothesis import given, settings
from hypothesis import strategies as st
from yarl import URL

from shared.errors import SemcallError
from shared.peer import close_peer, create_peer, prefer_h264, video_transceiver, wait_connected, wait_state
from shared.signalling_http import MAX_BODY, SDP
from shared.signalling_server import FRAGMENT
from shared.whip_client import WhipClient
from shared.whip_server import WhipServer

CHROMIUM = find_chromium()

# What Chromium offers for a camera and a microphone, less repetitions.
BROWSER_OFFER = """\
v=0
o=- 348327764692232476 2 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE 0 1
a=extmap-allow-mixed
a=msid-semantic: WMS stream
m=audio 39908 UDP/TLS/RTP/SAVPF 111 63 0
c=IN IP4 192.0.2.2
a=rtcp:9 IN IP4 0.0.0.0
a=candidate:1883733412 1 udp 2122194687 192.0.2.2 39908 typ host generation 0 network-id 1
a=candidate:2397940016 1 tcp 1518214911 192.0.2.2 9 typ host tcptype active generation 0 network-id 1
a=ice-ufrag:YNTv
a=ice-pwd:RocGn9UG9nyqKUJcVp1gB++B
a=ice-options:trickle
a=fingerprint:sha-256 4A:C4:83:E1:19:27:1F:F6:C5:A0:1D:1C:32:B5:B9:9A:C3:8D:CD:B6:9E:0E:CA:A7:29:A4:32:43:C6:A7:63:82
a=setup:actpass
a=mid:0
a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid
a=sendonly
a=msid:stream microphone
a=rtcp-mux
a=rtcp-rsize
a=rtpmap:111 opus/48000/2
a=rtcp-fb:111 transport-cc
a=fmtp:111 minptime=10;useinbandfec=1
a=rtpmap:63 red/48000/2
a=fmtp:63 111/111
a=rtpmap:0 PCMU/8000
a=ssrc:1447935517 cname:i5zQh9lMots8MamF
m=video 40265 UDP/TLS/RTP/SAVPF 96 97 102 103 108 109 116
c=IN IP4 192.0.2.2
a=rtcp:9 IN IP4 0.0.0.0
a=candidate:1883733412 1 udp 2122194687 192.0.2.2 40265 typ host generation 0 network-id 1
a=candidate:3139550276 1 udp 2122265343 2001:db8::2 56093 typ host generation 0 network-id 2
a=ice-ufrag:YNTv
a=ice-pwd:RocGn9UG9nyqKUJcVp1gB++B
a=ice-options:trickle
a=fingerprint:sha-256 4A:C4:83:E1:19:27:1F:F6:C5:A0:1D:1C:32:B5:B9:9A:C3:8D:CD:B6:9E:0E:CA:A7:29:A4:32:43:C6:A7:63:82
a=setup:actpass
a=mid:1
a=extmap:2 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time
a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid
a=sendonly
a=msid:stream camera
a=rtcp-mux
a=rtcp-rsize
a=rtpmap:96 VP8/90000
a=rtcp-fb:96 nack pli
a=rtpmap:97 rtx/90000
a=fmtp:97 apt=96
a=rtpmap:102 H264/90000
a=rtcp-fb:102 nack
a=rtcp-fb:102 nack pli
a=fmtp:102 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42001f
a=rtpmap:103 rtx/90000
a=fmtp:103 apt=102
a=rtpmap:108 H264/90000
a=rtcp-fb:108 goog-remb
a=rtcp-fb:108 nack
a=rtcp-fb:108 nack pli
a=fmtp:108 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f
a=rtpmap:109 rtx/90000
a=fmtp:109 apt=108
a=rtpmap:116 H264/90000
a=fmtp:116 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=4d001f
a=ssrc-group:FID 62270023 3412791606
a=ssrc:62270023 cname:i5zQh9lMots8MamF
a=ssrc:3412791606 cname:i5zQh9lMots8MamF
""".replace("\n", "\r\n")


class SmallTrack(VideoStreamTrack):
    async def recv(self):
        pts, time_base = await self.next_timestamp()
        frame = av.VideoFrame(160, 120, "yuv420p")
        for plane in frame.planes:
            plane.update(bytes([pts // 3000 % 200]) * plane.buffer_size)
        frame.pts, frame.time_base = pts, Fraction(time_base)
        return frame


class Receiver:
    """A WHIP endpoint that remembers what happened to it."""

    def __init__(self, **options):
        self.calls, self.ends = [], 0
        self.tracks, self.ended = asyncio.Queue(), asyncio.Queue()
        self.server = WhipServer(self.on_call, on_end=self.on_end, **options)

    async def on_call(self, peer):
        assert peer.remoteDescription is None
        assert video_transceiver(peer).direction == "recvonly"
        self.calls.append(peer)
        peer.on("track", self.tracks.put_nowait)

    def on_end(self):
        self.ends += 1
        self.ended.put_nowait(None)

    async def frame(self):
        track = await asyncio.wait_for(self.tracks.get(), 10)
        return await asyncio.wait_for(track.recv(), 10)

    async def until_ended(self):
        await asyncio.wait_for(self.ended.get(), 10)


@contextlib.asynccontextmanager
async def receiving(**options):
    receiver = Receiver(**options)
    await receiver.server.start("127.0.0.1", 0)
    try:
        yield receiver
    finally:
        await receiver.server.stop()


def sending_peer(track=True):
    peer = create_peer()
    prefer_h264(peer.addTransceiver(SmallTrack() if track else "video", direction="sendonly"))
    return peer


@contextlib.asynccontextmanager
async def calling(url, token=None):
    peer, client = sending_peer(), WhipClient(url, token)
    try:
        await client.publish(peer)
        yield peer, client
    finally:
        await client.close()
        await close_peer(peer)


async def offer_text(direction="sendonly", kinds=("video",), h264=True):
    peer = create_peer()
    for kind in kinds:
        transceiver = peer.addTransceiver(kind, direction=direction)
        if kind == "video" and h264:
            prefer_h264(transceiver)
    await peer.setLocalDescription(await peer.createOffer())
    text = peer.localDescription.sdp
    await peer.close()
    return text


async def http(method, url, body=None, **headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with (
        aiohttp.ClientSession(skip_auto_headers=["Content-Type"]) as session,
        session.request(method, url, data=body, headers=named) as reply,
    ):
        return reply.status, reply.headers, await reply.text()


async def post(url, body, **headers):
    return await http("POST", url, body, **{"Content_Type": SDP, **headers})


def assert_one_sentence(reply):
    status, headers, text = reply
    assert headers["Content-Type"].startswith("text/plain"), status
    assert text.endswith(".\n")
    assert text.count("\n") == 1


# Calls


async def test_a_call_delivers_frames_and_ends():
    async with receiving() as receiver:
        async with calling(receiver.server.url) as (peer, client):
            assert client.location is not None
            assert client.location.path.startswith("/whip/")
            assert client.etag
            await wait_connected(peer)
            answer = peer.remoteDescription.sdp
            assert "H264/90000" in answer
            assert "VP8" not in answer
            assert "a=recvonly" in answer
            frame = await receiver.frame()
            assert (frame.width, frame.height) == (160, 120)
            assert receiver.server.busy
        await receiver.until_ended()
        assert not receiver.server.busy
        assert receiver.calls[0].connectionState == "closed"
    assert receiver.ends == len(receiver.calls) == 1


async def test_a_second_call_follows_after_delete_and_after_an_abrupt_end():
    async with receiving() as receiver:
        async with calling(receiver.server.url):
            await receiver.frame()
        async with calling(receiver.server.url) as (peer, client):
            await receiver.frame()
            client.location = None  # no DELETE: only the peer connection closes
            await peer.close()
            await receiver.until_ended()
            await receiver.until_ended()
        async with calling(receiver.server.url):
            await receiver.frame()
    assert receiver.ends == len(receiver.calls) == 3


async def test_a_dead_peer_does_not_block_the_next_call():
    async with receiving() as receiver, calling(receiver.server.url):
        await receiver.frame()
        await receiver.calls[0].close()  # the next offer comes before the endpoint could notice
        async with calling(receiver.server.url):
            await receiver.frame()
    assert receiver.ends == 2


async def test_one_call_at_a_time():
    async with receiving() as receiver, calling(receiver.server.url):
        await receiver.frame()
        reply = await post(receiver.server.url, await offer_text())
        assert reply[0] == 503
        assert int(reply[1]["Retry-After"]) > 0
        assert_one_sentence(reply)
        with pytest.raises(SemcallError, match="busy with another call"):
            async with calling(receiver.server.url):
                pass
    assert len(receiver.calls) == 1


async def test_two_offers_at_once_make_one_call():
    async with receiving() as receiver:
        offers = [await offer_text() for _ in range(4)]
        replies = await asyncio.gather(*(post(receiver.server.url, offer) for offer in offers))
        assert sorted(status for status, _, _ in replies) == [201, 503, 503, 503]


async def test_a_call_that_never_connects_is_dropped():
    async with receiving(connect_timeout=0.2) as receiver:
        assert (await post(receiver.server.url, await offer_text()))[0] == 201
        await receiver.until_ended()
        assert not receiver.server.busy


async def test_a_call_that_connects_in_time_stays():
    async with receiving(connect_timeout=3) as receiver, calling(receiver.server.url) as (peer, _):
        await wait_connected(peer)
        await asyncio.sleep(3.2)
        assert receiver.server.busy


async def test_end_call_hangs_up():
    async with receiving() as receiver, calling(receiver.server.url) as (peer, _):
        await receiver.frame()
        await receiver.server.end_call()
        assert receiver.ends == 1
        assert await asyncio.wait_for(wait_state(peer, "closed"), 10) == "closed"
        await receiver.server.end_call()
    assert receiver.ends == 1


async def test_stop_ends_the_call_and_frees_the_port():
    async with receiving() as receiver:
        async with calling(receiver.server.url) as (peer, _):
            await receiver.frame()
            async with asyncio.timeout(5):
                await receiver.server.stop()
            assert receiver.ends == 1
            assert await asyncio.wait_for(wait_state(peer, "closed"), 10) == "closed"
        port = URL(receiver.server.url).port
        again = Receiver()
        await again.server.start("127.0.0.1", port)
        await again.server.stop()


async def test_audio_and_a_second_video_are_answered_inactive_wherever_they_stand():
    async with receiving() as receiver:
        reply = await post(receiver.server.url, await offer_text(kinds=("audio", "video", "video")))
        assert reply[0] == 201
        directions = [line for line in reply[2].splitlines() if line in ("a=inactive", "a=recvonly")]
        assert directions == ["a=inactive", "a=recvonly", "a=inactive"]


async def test_a_call_with_audio_first_delivers_frames():
    async with receiving() as receiver:
        peer, client = create_peer(), WhipClient(receiver.server.url)
        peer.addTransceiver("audio", direction="sendonly")
        prefer_h264(peer.addTransceiver(SmallTrack(), direction="sendonly"))
        await client.publish(peer)
        await wait_connected(peer)
        tracks = [await receiver.tracks.get(), await receiver.tracks.get()]
        frame = await asyncio.wait_for(next(track for track in tracks if track.kind == "video").recv(), 10)
        assert frame.width == 160
        await client.close()
        await close_peer(peer)


async def test_a_failing_on_call_frees_the_endpoint():
    async def fail(peer):
        raise RuntimeError("no decoder")

    server = WhipServer(fail)
    await server.start("127.0.0.1", 0)
    reply = await post(server.url, await offer_text())
    assert reply[0] == 500
    assert_one_sentence(reply)
    assert not server.busy
    await server.stop()


CAMERA_PAGE = """<!doctype html><script>
(async () => {
  const to = new URLSearchParams(location.search).get("to");
  const camera = await navigator.mediaDevices.getUserMedia({video: {width: 320, height: 240}, audio: true});
  const peer = new RTCPeerConnection(), found = [];
  for (const track of camera.getTracks()) peer.addTransceiver(track, {direction: "sendonly"});
  peer.onicecandidate = event => event.candidate && found.push(event.candidate);
  await peer.setLocalDescription();
  const auth = {Authorization: "Bearer s3cret"}, offer = peer.localDescription.sdp;
  const reply = await fetch(to, {method: "POST", body: offer, headers: {"Content-Type": "application/sdp", ...auth}});
  await peer.setRemoteDescription({type: "answer", sdp: await reply.text()});
  const session = new URL(reply.headers.get("Location"), to), tag = {"If-Match": reply.headers.get("ETag")};
  await new Promise(done => setTimeout(done, 300));
  const body = ["a=ice-ufrag:" + /ufrag:(.*)/.exec(offer)[1], "m=audio 9 RTP/AVP 0", "a=mid:0",
    ...found.map(one => "a=" + one.candidate), ""].join("\\r\\n");
  const type = {"Content-Type": "application/trickle-ice-sdpfrag"};
  const patch = await fetch(session, {method: "PATCH", body, headers: {...type, ...tag, ...auth}});
  await fetch("/seen");
  const end = await fetch(session, {method: "DELETE", headers: auth});
  await fetch("/result?" + [reply.status, patch.status, end.status]);
})().catch(error => fetch("/result?" + error));
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium or Chrome on the path (or in SEMCALL_TEST_CHROMIUM)")
async def test_a_page_in_chromium_calls_from_another_origin(tmp_path):
    async with receiving(token="s3cret") as receiver:
        result = asyncio.get_running_loop().create_future()

        async def page(request):
            if request.path == "/seen":  # answered when a frame was decoded
                tracks = [await receiver.tracks.get(), await receiver.tracks.get()]
                frame = await next(track for track in tracks if track.kind == "video").recv()
                assert (frame.width, frame.height) == (320, 240)
            elif request.path == "/result":
                result.set_result(request.query_string)
            return web.Response(text=CAMERA_PAGE, content_type="text/html")

        async with serving(page) as url, browsing(CHROMIUM, tmp_path) as tab:
            await tab.open(f"{URL(url).with_path('/')}?to={receiver.server.url}")
            assert await asyncio.wait_for(result, 45) == "201,204,200"
        assert receiver.ends == 1


# The endpoint's HTTP


async def test_the_answer_is_described_exactly():
    async with receiving(ice_servers=["turn:me:secret@192.0.2.1"]) as receiver:
        # Without a relay to reach, gathering would take seconds.
        receiver.server._ice_servers = ()
        status, headers, text = await post(receiver.server.url, await offer_text())
        assert status == 201
        assert headers["Content-Type"] == SDP
        assert headers["Location"].startswith("/whip/")
        assert headers["ETag"].startswith('"')
        assert 'rel="ice-server"; username="me"; credential="secret"' in headers["Link"]
        assert text.startswith("v=0\r\n")


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (lambda offer: "", 400),
        (lambda offer: "hello", 400),
        (lambda offer: "v=0\r\nm=video nonsense\r\n", 400),
        (lambda offer: offer.replace("m=video", "m=vid€o"), 422),
        (lambda offer: offer.encode("utf-16"), 400),
        (lambda offer: offer.replace("a=ice-ufrag", "a=x"), 400),
        (lambda offer: offer.replace("a=setup:actpass", "a=x"), 400),
        (lambda offer: offer.replace("a=fingerprint", "a=x"), 400),
        (lambda offer: offer.replace("a=rtcp-mux", "a=x"), 400),
        (lambda offer: offer + offer[offer.index("m=video") :], 400),  # the same a=mid twice
        (lambda offer: offer[: offer.index("m=video")], 400),
        (lambda offer: offer.replace("H264", "H265"), 422),
        (lambda offer: offer.replace("packetization-mode=1", "packetization-mode=0"), 422),
        (lambda offer: offer.replace("a=sendonly", "a=recvonly"), 422),
        (lambda offer: offer.replace("a=sendonly", "a=inactive"), 422),
        (lambda offer: offer.replace("m=video", "m=application"), 422),
        (lambda offer: "x" * (MAX_BODY + 1), 413),
    ],
)
async def test_unusable_offers_are_refused(change, status):
    async with receiving() as receiver:
        reply = await post(receiver.server.url, change(await offer_text()))
        assert reply[0] == status
        assert_one_sentence(reply)
        assert not receiver.server.busy
        assert receiver.ends == len(receiver.calls)


async def test_offers_without_h264_or_without_a_common_audio_codec_are_refused():
    async with receiving() as receiver:
        vp8 = await offer_text(h264=False)
        vp8 = "\r\n".join(line for line in vp8.splitlines() if "H264" not in line and "profile-level-id" not in line)
        assert (await post(receiver.server.url, vp8 + "\r\n"))[0] == 422
        assert (await post(receiver.server.url, await offer_text(kinds=("audio",))))[0] == 422
        strange = (await offer_text(kinds=("video", "audio"))).replace("opus/48000", "speex/48000")
        for name in ("PCMU", "PCMA", "G722"):
            strange = strange.replace(f"{name}/8000", f"{name}X/8000")
        reply = await post(receiver.server.url, strange)
        assert reply[0] == 422
        assert_one_sentence(reply)
        assert not receiver.server.busy


async def test_useless_candidates_do_no_harm():
    offer = await offer_text()
    more = "".join(
        f"a=candidate:{line}\r\n"
        for line in (
            "1 1 udp 2122260223 0f2a7f3e-0000-4000-8000-000000000000.local 50000 typ host",
            "2 1 tcp 1518280447 192.0.2.9 9 typ host tcptype active",
            "3 1 udp 2122260223 192.0.2.9 99999 typ host",
            "4 2 udp 2122260222 192.0.2.9 50001 typ host",
            "nonsense",
        )
    )
    async with receiving() as receiver:
        assert (await post(receiver.server.url, offer + more))[0] == 201


async def test_other_requests():
    async with receiving() as receiver:
        url = receiver.server.url
        replies = [
            (415, await http("POST", url, await offer_text(), Content_Type="text/plain")),
            (415, await http("POST", url, await offer_text())),
            (405, await http("GET", url)),
            (405, await http("PUT", url)),
            (405, await http("GET", url + "/abc")),
            (404, await http("DELETE", url + "/abc")),
            (404, await http("PATCH", url + "/abc", "", Content_Type=FRAGMENT)),
            (404, await http("GET", str(URL(url).with_path("/")))),
        ]
        for status, reply in replies:
            assert reply[0] == status
            assert_one_sentence(reply)
        assert "semcall receiver" in replies[2][1][2]
        assert "POST" in replies[2][1][1]["Allow"]


async def test_with_a_token_pages_of_any_origin_may_call():
    async with receiving(token="s3cret") as receiver:
        status, headers, _ = await http(
            "OPTIONS", receiver.server.url, Origin="https://example.org", Access_Control_Request_Method="POST"
        )
        assert status == 204
        assert headers["Access-Control-Allow-Origin"] == "*"
        assert {"POST", "PATCH", "DELETE"} <= set(headers["Access-Control-Allow-Methods"].split(", "))
        assert {"Authorization", "Content-Type", "If-Match"} <= set(
            headers["Access-Control-Allow-Headers"].split(", ")
        )
        assert headers["Accept-Post"] == SDP
        status, headers, _ = await post(
            receiver.server.url, "bad", Origin="https://example.org", Authorization="Bearer s3cret"
        )
        assert status == 400
        assert headers["Access-Control-Allow-Origin"] == "*"
        assert {"Location", "ETag", "Link"} <= set(headers["Access-Control-Expose-Headers"].split(", "))


async def test_without_a_token_only_pages_of_this_machine_may_call():
    async with receiving() as receiver:
        url, offer = receiver.server.url, await offer_text()
        foreign = ("https://example.org", "http://127.0.0.1.example.org", "http://localhost@evil", "http://[", "")
        for origin in foreign:
            reply = await post(url, offer, Origin=origin)
            assert reply[0] == 403, origin
            assert "--token" in reply[2]
            assert reply[1]["Access-Control-Allow-Origin"] == "*"  # so that the page can show the sentence
            assert_one_sentence(reply)
        assert not receiver.calls
        for origin in ("http://localhost:3000", "https://127.0.0.1", "http://[::1]:8080"):
            status, headers, _ = await post(url, offer, Origin=origin)
            assert status == 201, origin
            session = str(URL(url).join(URL(headers["Location"])))
            etag = headers["ETag"]
            for foreigner in foreign:
                assert (await http("DELETE", session, Origin=foreigner))[0] == 403
                trickle = await http("PATCH", session, "", Content_Type=FRAGMENT, If_Match=etag, Origin=foreigner)
                assert trickle[0] == 403
            assert receiver.server.busy
            assert (await http("DELETE", session, Origin=origin))[0] == 200


@pytest.mark.parametrize("token", ["", " ", "two words", "schlüssel", "line\n", "tab\t"])
def test_a_token_that_nobody_could_show_is_refused(token):
    with pytest.raises(SemcallError, match="--token") as refused:
        WhipServer(None, token=token)
    assert str(refused.value).endswith(".")


async def test_a_token_is_needed_on_every_request():
    async with receiving(token="s3cret") as receiver:
        url, offer = receiver.server.url, await offer_text()
        for shown in (None, "Bearer wrong", "Bearer ", "Basic s3cret", "s3cret", "Bearer s3creté"):
            headers = {} if shown is None else {"Authorization": shown}
            reply = await post(url, offer, **headers)
            assert reply[0] == 401
            assert reply[1]["WWW-Authenticate"].startswith("Bearer")
            assert_one_sentence(reply)
        status, headers, _ = await post(url, offer, Authorization="bearer s3cret")
        assert status == 201
        session = str(URL(url).join(URL(headers["Location"])))
        assert (await http("PATCH", session, "", Content_Type=FRAGMENT, If_Match=headers["ETag"]))[0] == 401
        assert (await http("DELETE", session))[0] == 401
        assert receiver.server.busy
        assert (await http("DELETE", session, Authorization="Bearer s3cret"))[0] == 200
        assert not receiver.server.busy
        for token, complaint in ((None, "wants a token"), ("wrong", "does not accept this token")):
            with pytest.raises(SemcallError, match=complaint):
                async with calling(url, token):
                    pass
        async with calling(url, "s3cret") as (peer, _):
            await wait_connected(peer)
        assert not receiver.server.busy


async def test_candidates_trickle_by_patch():
    async with receiving() as receiver:
        peer = sending_peer()
        await peer.setLocalDescription(await peer.createOffer())
        lines = peer.localDescription.sdp.splitlines()
        candidates = [line for line in lines if line.startswith("a=candidate")]
        ufrag = next(line for line in lines if line.startswith("a=ice-ufrag"))
        bare = "\r\n".join(line for line in lines if "candidate" not in line) + "\r\n"
        status, headers, _ = await post(receiver.server.url, bare)
        assert status == 201
        session, etag = str(URL(receiver.server.url).join(URL(headers["Location"]))), headers["ETag"]
        fragment = "\r\n".join(
            [ufrag, "m=video 9 UDP/TLS/RTP/SAVPF 0", "a=mid:0", "a=candidate:nonsense", *candidates]
        )
        fragment += "\r\na=end-of-candidates\r\n"
        for wrong, expected in (({}, 428), ({"If_Match": "*"}, 422), ({"If_Match": '"other"'}, 412)):
            reply = await http("PATCH", session, fragment, Content_Type=FRAGMENT, **wrong)
            assert reply[0] == expected
            assert_one_sentence(reply)
        assert (await http("PATCH", session, fragment, Content_Type=SDP, If_Match=etag))[0] == 415
        transport = video_transceiver(receiver.calls[0]).receiver.transport.transport
        assert transport.getRemoteCandidates() == []
        assert (await http("PATCH", session, fragment, Content_Type=FRAGMENT, If_Match=etag))[0] == 204
        assert len(transport.getRemoteCandidates()) == len(candidates)
        await peer.close()


async def test_a_call_connects_by_trickled_candidates_alone():
    async with receiving() as receiver:
        peer = sending_peer()
        await peer.setLocalDescription(await peer.createOffer())
        lines = peer.localDescription.sdp.splitlines()
        candidates = [line for line in lines if line.startswith("a=candidate")]
        status, headers, answer = await post(
            receiver.server.url, "\r\n".join(line for line in lines if "candidate" not in line) + "\r\n"
        )
        assert status == 201
        # Without the receiver's addresses, the sender cannot check first: only the trickled candidates can connect.
        blind = "".join(f"{line}\r\n" for line in answer.splitlines() if "candidate" not in line)
        session = str(URL(receiver.server.url).join(URL(headers["Location"])))
        await peer.setRemoteDescription(RTCSessionDescription(blind, "answer"))
        fragment = "\r\n".join(["a=mid:0", *candidates, ""])
        await http("PATCH", session, fragment, Content_Type=FRAGMENT, If_Match=headers["ETag"])
        await wait_connected(peer)
        assert (await receiver.frame()).width == 160
        await peer.close()


async def test_a_browsers_offer_gets_one_h264_codec():
    async with receiving() as receiver:
        status, _, answer = await post(receiver.server.url, BROWSER_OFFER)
        assert status == 201
        assert "m=video" in answer
        assert [line.split()[3:] for line in answer.splitlines() if line.startswith("m=video")] == [["108", "109"]]
        transport = receiver.calls[0].getTransceivers()[0].receiver.transport.transport
        # Candidates of both sections, whichever of them the browser means for the bundle.
        assert {candidate.port for candidate in transport.getRemoteCandidates()} == {39908, 40265, 56093}


@pytest.mark.parametrize(
    ("group", "status"),
    [
        ("a=group:BUNDLE 1 0", 201),
        ("a=group:BUNDLE 0", 422),
        ("a=group:BUNDLE 0 1 2", 422),
        ("a=x", 422),
    ],
)
async def test_offers_must_be_bundled_in_any_order(group, status):
    async with receiving() as receiver:
        reply = await post(receiver.server.url, BROWSER_OFFER.replace("a=group:BUNDLE 0 1", group))
        assert reply[0] == status
        if status == 201:
            assert receiver.calls[0].getTransceivers()[0].receiver.transport.transport.state != "closed"


@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.data())
def test_broken_offers_never_break_the_endpoint(data):
    lines = BROWSER_OFFER.splitlines()
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(lines) - 1))
        how = data.draw(st.sampled_from(["drop", "cut", "double", "noise", "number"]))
        if how == "drop" and len(lines) > 1:
            del lines[at]
        elif how == "cut":
            lines[at] = lines[at][: data.draw(st.integers(0, len(lines[at])))]
        elif how == "double":
            lines.insert(at, data.draw(st.sampled_from(lines)))
        elif how == "noise":
            start = data.draw(st.integers(0, len(lines[at])))
            lines[at] = lines[at][:start] + data.draw(st.text(max_size=20))
        else:
            digit, number = data.draw(st.sampled_from("0129")), str(data.draw(st.integers(-1, 2**33)))
            lines[at] = lines[at].replace(digit, number)
    body = "\r\n".join([*lines, ""]).encode("utf-8", "surrogatepass")

    async def run():
        broken = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: broken.append(context))
        async with receiving() as receiver:
            status, _, text = await post(receiver.server.url, body)
            assert status == 201 or 400 <= status < 500, text
            assert receiver.server.busy == (status == 201)
            await asyncio.sleep(0)
        assert receiver.ends == len(receiver.calls)
        gc.collect()
        assert broken == []

    asyncio.run(run())


@pytest.mark.parametrize(
    ("host", "port", "complaint"),
    [
        ("192.0.2.77", 0, "not an address of this machine"),
        ("no.such.host.invalid", 0, "not an address of this machine"),
        ("127.0.0.1", 70000, "There is no port 70000"),
    ],
)
async def test_addresses_that_cannot_be_had(host, port, complaint):
    with pytest.raises(SemcallError, match=complaint):
        await WhipServer(lambda peer: asyncio.sleep(0)).start(host, port)


async def test_a_port_in_use():
    async with receiving() as receiver:
        port = URL(receiver.server.url).port
        with pytest.raises(SemcallError, match=f"Port {port} on 127.0.0.1 is in use"):
            await WhipServer(lambda peer: asyncio.sleep(0)).start("127.0.0.1", port)


async def test_the_url_for_all_addresses_names_one_that_can_be_called():
    receiver = Receiver(path="call")
    await receiver.server.start("0.0.0.0", 0)
    url = URL(receiver.server.url)
    assert url.host != "0.0.0.0"
    assert url.path == "/call"
    assert (await http("OPTIONS", str(url)))[0] == 204
    await receiver.server.stop()


# The client against other servers


@contextlib.asynccontextmanager
async def serving(handler):
    """A plain HTTP server whose every request goes to `handler`."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/whip"
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def raw(answer, linger=0.0):
    """A TCP service that sends `answer` to whoever connects, then closes after `linger` seconds."""

    async def handle(reader, writer):
        with contextlib.suppress(ConnectionError):
            writer.write(answer)
            await writer.drain()
            await asyncio.sleep(linger)
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/whip"
    finally:
        server.close()


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


async def refusal(url, token=None):
    peer, client = sending_peer(track=False), WhipClient(url, token)
    with pytest.raises(SemcallError) as caught:
        await client.publish(peer)
    await peer.close()
    assert client.location is None
    text = str(caught.value)
    assert text.endswith(".")
    assert "\n" not in text
    return text


@pytest.mark.parametrize("status", [307, 308])
async def test_redirects_are_followed_with_method_and_body(status):
    async with receiving() as receiver:

        async def elsewhere(request):
            return web.Response(status=status, headers={"Location": receiver.server.url})

        async with serving(elsewhere) as url, calling(url) as (peer, client):
            assert str(client.location).startswith(receiver.server.url)
            await wait_connected(peer)
        assert not receiver.server.busy  # DELETE went to where the session is


async def test_redirects_in_circles():
    async def again(request):
        return web.Response(status=307, headers={"Location": "/whip"})

    async with serving(again) as url:
        assert "circles" in await refusal(url)


@pytest.mark.parametrize(
    ("status", "content_type", "body", "complaint"),
    [
        (404, "text/html", "<p>Not here</p>", "not a WHIP endpoint (HTTP 404)"),
        (405, "text/html", "", "not a WHIP endpoint (HTTP 405)"),
        (200, "text/html", "<p>Welcome</p>", "not a WHIP endpoint (HTTP 200)"),
        (201, "text/html", "<p>Created</p>", "answered without a session description"),
        (201, SDP, "hello", "refuses H.264 video"),
        (201, SDP, "v=0\r\nm=video", "answered without a session description"),
        (422, "text/plain", "Video codec unknown.", "refuses the call (Video codec unknown)"),
        (500, "text/html", "<p>Oops</p>", "cannot take the call now (HTTP 500)"),
        (403, "text/plain", "no", "wants a token"),
        (200, "text/plain", "x" * 300_000, "never ends"),
    ],
)
async def test_other_servers_are_told_apart(status, content_type, body, complaint):
    deleted = []

    async def answer(request):
        if request.method == "DELETE":
            deleted.append(request.path)
        headers = {"Location": "/whip/1"} if status == 201 else {}
        return web.Response(status=status, content_type=content_type, body=body.encode(), headers=headers)

    async with serving(answer) as url:
        assert complaint in await refusal(url)
    assert deleted == (["/whip/1"] if status == 201 else [])  # a useless session is ended


async def test_an_answer_that_refuses_the_video():
    async with receiving() as receiver:

        async def refuse(request):
            if request.method != "POST":
                return web.Response()
            _, _, answer = await post(receiver.server.url, await request.read())
            return web.Response(
                status=201, content_type=SDP, body=answer.replace("a=recvonly", "a=inactive").encode()
            )

        async with serving(refuse) as url:
            assert "refuses H.264 video" in await refusal(url)


@pytest.mark.parametrize(
    "answer", [b"SSH-2.0-OpenSSH_9.2\r\n", b"\x00\xff\x80garbage", b"", b"HTTP/1.1 two hundred\r\n\r\n"]
)
async def test_services_that_do_not_speak_http(answer):
    async with raw(answer) as url:
        assert "does not answer in HTTP" in await refusal(url)
        with pytest.raises(SemcallError, match="does not answer in HTTP"):
            await WhipClient(url).wait_for_endpoint(5)


async def test_tls_where_there_is_none():
    async with receiving() as receiver:
        assert "TLS" in await refusal(receiver.server.url.replace("http:", "https:"))


async def test_nobody_answers():
    url = f"http://127.0.0.1:{free_port()}/whip"
    waits = []
    with pytest.raises(SemcallError, match=r"No receiver answers at .*/whip after 0\.5 s: start `semcall receive`"):
        await WhipClient(url).wait_for_endpoint(0.5, lambda: waits.append(1))
    assert waits == [1]
    assert "start `semcall receive`" in await refusal(url)


async def test_the_receiver_may_start_later():
    port = free_port()
    receiver, waiting = Receiver(), asyncio.Event()
    url = f"http://127.0.0.1:{port}/whip"
    wait = asyncio.ensure_future(WhipClient(url).wait_for_endpoint(20, waiting.set))
    await waiting.wait()
    await receiver.server.start("127.0.0.1", port)
    await wait
    async with calling(url):
        await receiver.frame()
    await receiver.server.stop()


async def test_a_receiver_that_is_there_needs_no_wait():
    async with receiving(token="s3cret") as receiver:
        await WhipClient(receiver.server.url).wait_for_endpoint(0, lambda: pytest.fail("waited"))


async def test_a_name_that_does_not_resolve_is_reported_at_once():
    client = WhipClient("http://no.such.host.invalid:8787/whip")
    with pytest.raises(SemcallError, match=r"name no\.such\.host\.invalid does not resolve"):
        await client.wait_for_endpoint(600)


@pytest.mark.parametrize(
    "url", ["", "nonsense", "127.0.0.1:8787/whip", "ftp://host/whip", "http://", "http://host:99999/"]
)
def test_malformed_addresses(url):
    with pytest.raises(SemcallError, match="not an address to call"):
        WhipClient(url)


@pytest.mark.parametrize("token", ["", "two words", "line\nbreak", "é"])
def test_malformed_tokens(token):
    with pytest.raises(SemcallError, match="token"):
        WhipClient("http://127.0.0.1:8787/whip", token)


@pytest.mark.parametrize("status", [201, 503])
async def test_an_offer_given_up_before_its_answer_leaves_no_session(status):
    asked, answer, deleted = asyncio.Event(), asyncio.Event(), []

    async def slow(request):
        if request.method == "DELETE":
            deleted.append(request.path)
            return web.Response()
        asked.set()
        await answer.wait()
        return web.Response(status=status, headers={"Location": "/whip/7"})

    async with serving(slow) as url:
        peer, client = sending_peer(track=False), WhipClient(url)
        publishing = asyncio.ensure_future(client.publish(peer))
        await asked.wait()
        publishing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await publishing
        asyncio.get_running_loop().call_later(0.05, answer.set)
        await client.close()
        await peer.close()
    assert deleted == (["/whip/7"] if status == 201 else [])


async def test_an_offer_given_up_and_never_answered(monkeypatch):
    monkeypatch.setattr("shared.signalling_client._LATE_ANSWER_SECONDS", 0.05)
    asked = asyncio.Event()

    async def never(request):
        asked.set()
        await asyncio.sleep(30)

    async with serving(never) as url:
        peer, client = sending_peer(track=False), WhipClient(url)
        publishing = asyncio.ensure_future(client.publish(peer))
        await asked.wait()
        publishing.cancel()
        async with asyncio.timeout(10):
            await client.close()
        await peer.close()
        assert client.location is None
        assert not [task for task in asyncio.all_tasks() if "Exchange.request" in repr(task)]


async def test_close_does_not_wait_for_a_silent_server():
    async with raw(b"", linger=30) as url:
        client = WhipClient(url)
        client.location = URL(url)
        async with asyncio.timeout(10):
            await client.close()
        await client.close()
