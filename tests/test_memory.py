"""Freed memory of a picture's size is used again."""

from __future__ import annotations

import gc
import platform
import subprocess
import sys
from fractions import Fraction

import av
import numpy as np
import pytest

from benchmarks import memory
from models.registry import find_model
from receiver.decoder import Decoder
from receiver.jitter import AccessUnit
from shared.memory import keep_freed_memory
from shared.restorer import Restorer

FAULTS = """
import resource, sys, threading
import numpy as np
from shared.memory import keep_freed_memory
from shared.restorer import Restorer
if sys.argv[1] == "kept":
    assert keep_freed_memory()
def pictures(count):
    for _ in range(count):
        held = [np.ones((1080, 1280), np.uint8) for _ in range(6)]
        del held
def run():
    pictures(5)
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    pictures(100)
    print(resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before)
thread = threading.Thread(target=run)
thread.start()
thread.join()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="speaks to the GNU C library")
def test_a_thread_uses_the_memory_of_the_pictures_before() -> None:
    def faults(how: str) -> int:
        command = [sys.executable, "-c", FAULTS, how]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    # Six pictures have 2025 pages; of huge ones, where the system gives them, 4.
    assert faults("kept") < 100 < faults("given back")


def test_elsewhere_it_says_that_it_did_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_freed_memory()


def test_decoded_frames_do_not_pile_up() -> None:
    """PyAV's frames and their side data are rings; without anybody's help some two hundred would be there."""
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = 64, 48, "yuv420p"
    encoder.time_base, encoder.options = Fraction(1, 30), {"tune": "zerolatency"}
    decoder, most = Decoder(), 0
    for index in range(60):
        frame = av.VideoFrame.from_ndarray(np.full((72, 64), index, np.uint8), format="yuv420p")
        frame.pts = index
        for packet in encoder.encode(frame):
            (picture,) = decoder.decode(AccessUnit(bytes(packet), index * 3000, 0.0, index == 0, False))
            assert picture.qp.any()
        most = max(most, sum(isinstance(seen, av.VideoFrame) for seen in gc.get_objects()))
    assert most <= 24


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
def test_the_benchmark_measures_a_receiver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "SIZE", (160, 96))
    monkeypatch.setattr(memory, "SKIPPED", 4)
    units = memory.code(40)
    restorer = Restorer(find_model("fast").path, "fast")
    found = {collected: memory.receive(units, restorer, collected) for collected in (True, False)}
    for figures in found.values():
        assert min(figures["decode"], figures["restore"], figures["steady"]) > 0
        assert figures["faults"] >= 0
