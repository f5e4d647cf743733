"""Calls with software of others: FFmpeg's whip muxer and Chromium, in whole, over real sockets.

The picture that arrives must show the face of the demo source: the shipped parser has to find it where it finds it in
what was sent. docs/interop.md says what is tried here and what is not.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import AsyncIterator, Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from aiohttp import web
from chromium import Page, browsing, find_chromium
from test_whep import Program, write_certificate

from models.registry import find_model
from sender.parser import FaceParser
from shared.astronaut import AstronautClip
from shared.picture import I420, i420_from_bgr, i420_from_frame

SIZE = (640, 360)
PATIENCE = 30.0  # seconds after which a test gives up
CHROMIUM = find_chromium()
WHIP_MUXER = "whip" in av.formats_available

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
chromium_only = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium or Chrome on the path (or in SEMCALL_TEST_CHROMIUM)"
)

CALL_PAGE = """<!doctype html><body style="margin:0"><video id=seen autoplay muted playsinline></video><script>
let peer, session, show;
async function offer(to, token) {
  show = token ? {Authorization: "Bearer " + token} : {};
  await peer.setLocalDescription();
  await new Promise(done => {
    peer.onicegatheringstatechange = () => peer.iceGatheringState == "complete" && done();
    setTimeout(done, 2000);
  });
  const headers = {"Content-Type": "application/sdp", ...show};
  const reply = await fetch(to, {method: "POST", body: peer.localDescription.sdp, headers});
  const text = await reply.text();
  if (reply.status != 201) return [reply.status, text];
  session = new URL(reply.headers.get("Location"), to);
  await peer.setRemoteDescription({type: "answer", sdp: text});
  return [reply.status, ""];
}
async function publish(to, token, only = "") {
  peer = new RTCPeerConnection();
  const video = {width: 640, height: 360, frameRate: 30};
  const camera = await navigator.mediaDevices.getUserMedia({video, audio: true});
  for (const track of camera.getTracks()) {
    const one = peer.addTransceiver(track, {direction: "sendonly", streams: [camera]});
    if (track.kind == "video" && only) one.setCodecPreferences(
      RTCRtpSender.getCapabilities("video").codecs.filter(codec => codec.mimeType == only));
  }
  return await offer(to, token);
}
async function watch(to, token) {
  peer = new RTCPeerConnection();
  peer.ontrack = event => seen.srcObject = new MediaStream([event.track]);
  peer.addTransceiver("video", {direction: "recvonly"});
  return await offer(to, token);
}
async function frames(count) {
  while (seen.getVideoPlaybackQuality().totalVideoFrames < count) await new Promise(next => setTimeout(next, 50));
  return [seen.videoWidth, seen.videoHeight];
}
async function figures() {
  const all = [...(await peer.getStats()).values()];
  const rtp = all.find(one => ["inbound-rtp", "outbound-rtp"].includes(one.type) && one.kind == "video");
  const codec = rtp && all.find(one => one.id == rtp.codecId);
  return {...rtp, codec: codec && codec.mimeType + " " + codec.sdpFmtpLine};
}
async function end() { return (await fetch(session, {method: "DELETE", headers: show})).status; }
</script>"""


@contextlib.asynccontextmanager
async def semcall(*arguments: object) -> AsyncIterator[Program]:
    program = await Program.start(*arguments)
    try:
        yield program
    finally:
        await program.kill()


@contextlib.asynccontextmanager
async def chromium(folder: Path, *flags: str) -> AsyncIterator[Page]:
    """Chromium on a page of this machine that can call WHIP and WHEP endpoints."""
    assert CHROMIUM is not None

    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=CALL_PAGE, content_type="text/html")

    app = web.Application()
    app.router.add_get("/", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    profile = folder / "profile"
    try:
        async with browsing(CHROMIUM, profile, *flags) as page:
            await page.open(f"http://127.0.0.1:{runner.addresses[0][1]}/")
            yield page
    finally:
        await runner.cleanup()


def receiving(folder: Path, *arguments: object) -> contextlib.AbstractAsyncContextManager[Program]:
    files = ("--record", folder / "seen.mkv", "--stats", folder / "seen.jsonl")
    return semcall("receive", "--headless", "--once", "--restore", "off", "--port", 0, *files, *arguments)


async def address(program: Program) -> str:
    """What it prints as its endpoint."""
    line = await program.until("http://127.0.0.1:")
    return "http://127.0.0.1:" + line.split("http://127.0.0.1:")[1].split()[0].rstrip(".")


def lines(folder: Path) -> list[dict[str, Any]]:
    path = folder / "seen.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.05)


def recorded(folder: Path) -> list[I420]:
    """The pictures that the receiver showed."""
    with av.open(str(folder / "seen.mkv")) as container:
        return [i420_from_frame(frame) for frame in container.decode(video=0)]


def find_face(i420: I420) -> tuple[float, float, float]:
    """Centre (x, y) of the face and its area, as parts of the picture; area 0 where there is none."""
    model = find_model("face", "face-parser")
    likely = FaceParser(model.path, model.card).probabilities(i420) > 0.5
    if not likely.any():
        return 0.5, 0.5, 0.0
    rows, columns = np.nonzero(likely)
    return (columns.mean() + 0.5) / likely.shape[1], (rows.mean() + 0.5) / likely.shape[0], likely.mean()


def assert_face(i420: I420) -> None:
    """The demo source's face is there. It wanders with time: it is looked for all along its way."""
    clip = AstronautClip(SIZE)
    places = np.array([find_face(clip.picture(30 * second)) for second in range(0, 20, 2)])
    low, high = places.min(axis=0), places.max(axis=0)
    found = np.array(find_face(i420))
    margin = np.array([0.05, 0.05, 0.3 * low[2]])
    assert np.all(found > low - margin), (found, low)
    assert np.all(found < high + margin), (found, high)


def write_camera(path: Path, seconds: float = 2.0) -> None:
    """The demo source as a Y4M file, which Chromium plays over and over."""
    clip = AstronautClip(SIZE)
    with path.open("wb") as file:
        file.write(b"YUV4MPEG2 W%d H%d F30:1 Ip A1:1 C420jpeg\n" % SIZE)
        for index in range(round(seconds * 30)):
            file.write(b"FRAME\n" + clip.picture(index).tobytes())


# FFmpeg


def publish_with_ffmpeg(url: str, token: str, folder: Path, frames: int, stop: Callable[[], bool]) -> None:
    """The demo source through libx264 and FFmpeg's whip muxer, in real time, with the microphone's silence.

    The certificate that FFmpeg with GnuTLS makes itself is on a curve that OpenSSL refuses ("wrong curve"): it gets
    one on P-256 (RFC 8827 section 6.5). The GIL is held while it connects, so the other end must be another process.
    """
    cert, key = write_certificate(folder)
    options = {"authorization": token, "cert_file": str(cert), "key_file": str(key)}
    clip = AstronautClip(SIZE)
    with av.open(url, "w", format="whip", options=options) as output:
        video = output.add_stream("libx264", rate=30)
        video.width, video.height, video.pix_fmt, video.bit_rate = *SIZE, "yuv420p", 600_000
        video.codec_context.options = {"preset": "ultrafast", "tune": "zerolatency", "profile": "baseline"}
        video.codec_context.profile = "Baseline"
        video.codec_context.gop_size = 30
        audio = output.add_stream("libopus", rate=48000)
        audio.codec_context.layout, audio.codec_context.format = "stereo", "s16"
        start = time.monotonic()
        for index in range(frames):
            if stop():
                break
            frame = av.VideoFrame.from_ndarray(clip.picture(index), format="yuv420p")
            frame.pts, frame.time_base = index * 3000, Fraction(1, 90_000)
            output.mux(video.encode(frame))
            for number in range(index * 5 // 3, (index + 1) * 5 // 3):  # 50 packets of 20 ms a second
                silence = av.AudioFrame(format="s16", layout="stereo", samples=960)
                silence.planes[0].update(bytes(silence.planes[0].buffer_size))
                silence.sample_rate, silence.pts, silence.time_base = 48000, number * 960, Fraction(1, 48000)
                output.mux(audio.encode(silence))
            time.sleep(max(0.0, start + (index + 1) / 30 - time.monotonic()))


@pytest.mark.skipif(not WHIP_MUXER, reason="PyAV's FFmpeg has no whip muxer")
async def test_ffmpegs_whip_muxer_calls_a_receiver(tmp_path: Path) -> None:
    async with receiving(tmp_path, "--token", "s3cret") as program:
        url = await address(program)
        with pytest.raises(av.FFmpegError):  # the muxer reads 401
            await asyncio.to_thread(publish_with_ffmpeg, url, "wrong", tmp_path, 3, lambda: False)
        publishing = asyncio.ensure_future(
            asyncio.to_thread(publish_with_ffmpeg, url, "s3cret", tmp_path, 600, lambda: len(lines(tmp_path)) > 40)
        )
        await until(lambda: len(lines(tmp_path)) > 40 or publishing.done())
        await publishing
        assert await program.ends() == 0, program.said  # its DELETE ends the call, and the call --once
    shown = lines(tmp_path)
    assert shown[-1]["lost"] == 0
    assert not any(line["damaged"] for line in shown)
    assert_face(recorded(tmp_path)[-1])


# Chromium


@chromium_only
async def test_chromium_calls_a_receiver(tmp_path: Path) -> None:
    write_camera(tmp_path / "camera.y4m")
    camera = f"--use-file-for-fake-video-capture={tmp_path / 'camera.y4m'}"
    async with receiving(tmp_path, "--token", "s3cret") as program, chromium(tmp_path, camera) as page:
        url = await address(program)
        assert await page.run(f"publish('{url}', 'wrong')") == [401, "Show the receiver's token.\n"]
        status, told = await page.run(f"publish('{url}', 's3cret', 'video/VP8')")
        assert status == 422
        assert "H.264" in told
        assert await page.run(f"publish('{url}', 's3cret')") == [201, ""]
        await until(lambda: len(lines(tmp_path)) > 60)
        figures = await page.run("figures()")
        print(figures)
        assert figures["codec"].startswith("video/H264 ")
        assert "profile-level-id=42e01f" in figures["codec"]
        assert await page.run("end()") == 200
        assert await program.ends() == 0, program.said
    pictures = recorded(tmp_path)
    assert len(pictures) > 40
    assert_face(pictures[-1])


@chromium_only
async def test_chromium_watches_a_sender(tmp_path: Path) -> None:
    small = ("--source", "demo", "--size", "640x360")
    place = ("--listen", "127.0.0.1:0", "--once", "--token", "s3cret")
    async with semcall("send", *small, *place) as program, chromium(tmp_path) as page:
        url = await address(program)
        assert await page.run(f"watch('{url}', 'wrong')") == [401, "Show the sender's token.\n"]
        assert await page.run(f"watch('{url}', 's3cret')") == [201, ""]
        assert await page.run("frames(45)") == [640, 360]
        screenshot = await page.screenshot()
        figures = await page.run("figures()")
        print(figures)
        assert figures["codec"].startswith("video/H264 ")
        assert figures["framesDecoded"] >= 45
        assert await page.run("end()") == 200
        assert await program.ends() == 0, program.said
        assert "The viewer has hung up." in program.said
    if folder := os.environ.get("SEMCALL_TEST_SCREENSHOTS"):
        (Path(folder) / "chromium-watches.png").write_bytes(screenshot)
    picture = cv2.imdecode(np.frombuffer(screenshot, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    assert_face(i420_from_bgr(np.ascontiguousarray(picture[: SIZE[1], : SIZE[0]])))
