"""H.264 access units and the sound of their source in an MP4 file (ISO/IEC 14496-12, 14496-15)."""

from __future__ import annotations

import io
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
from av.audio.stream import AudioStream
from av.stream import Stream
from av.video.stream import VideoStream

from shared.errors import SemcallError
from shared.h264 import NAL_PICTURE_PARAMETERS, NAL_SEQUENCE_PARAMETERS, is_keyframe, nal_type, nal_units
from shared.picture import CLOCK_RATE

_TIME_BASE = Fraction(1, CLOCK_RATE)
# The index in front lets a player start before it has the whole file; FFmpeg moves it there when the file is closed.
_OPTIONS = {"movflags": "faststart", "video_track_timescale": str(CLOCK_RATE)}
_COPIED = frozenset({"aac", "ac3", "alac", "eac3", "flac", "mp2", "mp3", "opus"})  # what players take in MP4
_AAC_RATES = frozenset({8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000})
_GAP = 0.1  # seconds of sound missing by its times, from which on silence takes their place
_AHEAD = 0.5  # seconds that sound is written ahead of the pictures, so that neither waits for the other in a player


class Mp4Writer:
    """Writes H.264 access units, and sound beside them, to `path`. A context manager; leaving it finishes the file.

    The first access unit has to be an IDR with its parameter sets; those of all access units go to the sample
    description (`avcC`, ISO/IEC 14496-15 clause 5.3.3), where an `avc1` track has them, and so must not change.
    `cut`: sound ends with the last picture, not with its source. Raises SemcallError where the file cannot be
    written; `named` is what that calls it.
    """

    def __init__(
        self, path: Path, fps: float, sound: Sound | None = None, named: Path | None = None, cut: bool = False
    ) -> None:
        self._named = named or path
        self._period = round(CLOCK_RATE / fps)
        self._sound = sound
        self._cut, self._end = cut, 0.0
        self._video: VideoStream | None = None
        try:
            self._container = av.open(str(path), "w", format="mp4", options=_OPTIONS)
        except (av.FFmpegError, OSError) as error:
            raise self._failed(error) from None

    def write(self, access_unit: bytes, ticks: int) -> None:
        """One access unit (Annex B) shown at `ticks` (90 kHz since the first picture, increasing)."""
        units = nal_units(access_unit)
        sets = (NAL_SEQUENCE_PARAMETERS, NAL_PICTURE_PARAMETERS)
        kept = b"".join(b"\0\0\0\1" + unit for unit in units if nal_type(unit) not in sets)
        packet = av.Packet(kept)
        packet.pts = packet.dts = ticks
        packet.time_base, packet.duration = _TIME_BASE, self._period
        packet.is_keyframe = is_keyframe(access_unit)
        self._end = (ticks + self._period) / CLOCK_RATE
        try:
            if self._video is None:
                self._video = self._describe(access_unit)
            if self._sound is not None:
                for other in self._sound.until(ticks / CLOCK_RATE + _AHEAD):
                    self._container.mux(other)
            packet.stream = self._video
            self._container.mux(packet)
        except (av.FFmpegError, OSError) as error:
            raise self._failed(error) from None

    def __enter__(self) -> Mp4Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None and self._sound is not None and self._video is not None:
                for packet in self._sound.until(self._end if self._cut else float("inf")):
                    self._container.mux(packet)
            self._container.close()
        except (av.FFmpegError, OSError) as failure:
            if error is None:
                raise self._failed(failure) from None

    def _describe(self, access_unit: bytes) -> VideoStream:
        """The tracks. FFmpeg reads size, profile and colours from the stream itself."""
        with av.open(io.BytesIO(access_unit), format="h264") as parsed:
            video = self._container.add_stream_from_template(parsed.streams.video[0])
        video.time_base = _TIME_BASE
        if self._sound is not None:
            self._sound.attach(self._container)
        return video

    def _failed(self, error: Exception) -> SemcallError:
        reason = getattr(error, "strerror", None) or error
        return SemcallError(f"Cannot write {self._named} ({reason}): nothing was kept; choose another place.")


class Sound:
    """Every audio track of a video file, on the clock of its pictures.

    `start`: time of the first picture in the file, seconds. Tracks that MP4 players take are copied, others become
    AAC, mono or stereo. Sound that ends before the first picture is left out.
    `described`: one word per track; `broken`: whether some of the sound is damaged or unknown and was left out.
    """

    def __init__(self, path: Path, start: float) -> None:
        self._container = av.open(str(path), metadata_errors="replace")
        self._path, self._start = path, start
        self._tracks: dict[int, _Copied | _Recoded] = {}
        self._packets = self._read()
        self._next: av.Packet[Stream] | None = None
        tracks = self._container.streams.audio
        self._streams = [
            track for track in tracks if track.codec_context is not None and track.codec_context.sample_rate
        ]
        self.broken = len(self._streams) < len(tracks)
        self.described = [name if name in _COPIED else f"{name} as aac" for name in map(_codec_name, self._streams)]

    def attach(self, container: av.container.OutputContainer) -> None:
        """Add the tracks to the file that they are meant for; before its first packet."""
        for stream in self._streams:
            kind = _Copied if _codec_name(stream) in _COPIED else _Recoded
            self._tracks[stream.index] = kind(stream, container, self._start)

    def until(self, seconds: float) -> Iterator[av.Packet[Stream]]:
        """Packets not yet given out that begin up to `seconds` after the first picture."""
        while True:
            packet = self._next or next(self._packets, None)
            if packet is None:
                return
            self._next = packet
            if packet.dts is not None and packet.time_base and packet.dts * packet.time_base > seconds:
                return
            self._next = None
            yield packet

    @property
    def missing(self) -> list[str]:
        """A sentence where some of the sound could not be read; else nothing."""
        said = f"The sound of {self._path} is damaged or of unknown kind: what could be read of it is kept."
        return [said] if self.broken else []

    def close(self) -> None:
        """Let go of the source."""
        self._container.close()

    def _read(self) -> Iterator[av.Packet[Stream]]:
        if not self._streams:
            return
        try:
            for packet in self._container.demux(self._streams):
                if packet.dts is not None:
                    yield from self._tracks[packet.stream_index].take(packet)
        except av.FFmpegError:
            self.broken = True
        for track in self._tracks.values():
            yield from track.end()


def _codec_name(stream: AudioStream) -> str:
    """The codec's own name, whatever its decoder's is."""
    return stream.codec_context.codec.canonical_name


class _Copied:
    """Packets as they are, at their new times."""

    def __init__(self, stream: AudioStream, container: av.container.OutputContainer, start: float) -> None:
        self._out = container.add_stream_from_template(stream)
        self._start = start
        self._last: int | None = None

    def take(self, packet: av.Packet[Stream]) -> Iterator[av.Packet[Stream]]:
        base = packet.time_base
        offset = round(self._start / base)
        packet.dts = (packet.dts or 0) - offset
        packet.pts = packet.dts if packet.pts is None else max(packet.pts - offset, packet.dts)
        # A decoder needs the packet before the first picture's, too: it overlaps the next (and primes the codec).
        early = packet.dts + 2 * max(packet.duration or 0, 1) <= 0
        if early or (self._last is not None and packet.dts <= self._last):  # MP4 has no way back in time
            return
        self._last = packet.dts
        packet.stream = self._out
        yield packet

    def end(self) -> Iterator[av.Packet[Stream]]:
        yield from ()


class _Recoded:
    """Decoded and coded again as AAC."""

    def __init__(self, stream: AudioStream, container: av.container.OutputContainer, start: float) -> None:
        rate = stream.codec_context.sample_rate
        self._in = stream
        self._out = container.add_stream("aac", rate=rate if rate in _AAC_RATES else 48_000)
        self._out.layout = "mono" if stream.codec_context.channels == 1 else "stereo"
        self._start = start
        self._next: int | None = None  # sample that comes next, counted from the first picture

    def take(self, packet: av.Packet[Stream]) -> Iterator[av.Packet[Stream]]:
        try:
            frames = self._in.decode(packet)
        except av.InvalidDataError:  # one damaged packet: a gap of its length
            return
        for frame in frames:
            # Times of containers are too coarse for the encoder: samples are counted, and times show gaps only.
            when = self._next or 0
            if frame.time is not None:
                when = round((frame.time - self._start) * frame.sample_rate)
            if self._next is None:
                if when + frame.samples <= 0:
                    continue
                self._next = when
            missing = when - self._next
            if missing > _GAP * frame.sample_rate:
                yield from self._encode(_silence(frame, missing))
            yield from self._encode(frame)

    def end(self) -> Iterator[av.Packet[Stream]]:
        yield from self._out.encode(None)

    def _encode(self, frame: av.AudioFrame) -> Iterator[av.Packet[Stream]]:
        assert self._next is not None
        frame.pts, frame.time_base = self._next, Fraction(1, frame.sample_rate)
        self._next += frame.samples
        yield from self._out.encode(frame)


def _silence(like: av.AudioFrame, samples: int) -> av.AudioFrame:
    """So many samples of nothing, in the format of another frame."""
    frame = av.AudioFrame(like.format.name, like.layout.name, samples)
    frame.sample_rate = like.sample_rate
    for plane in frame.planes:
        plane.update((b"\x80" if like.format.name.startswith("u8") else b"\0") * plane.buffer_size)
    return frame
