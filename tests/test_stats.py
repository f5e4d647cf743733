"""The snapshot that both ends fill, and the small counters behind it."""

from __future__ import annotations

import json
import string
from dataclasses import fields, replace
from typing import Any

import pytest
from aiortc.clock import current_datetime
from aiortc.stats import RTCOutboundRtpStreamStats, RTCRemoteInboundRtpStreamStats
from hypothesis import given
from hypothesis import strategies as st

from receiver.loss import LossWindow
from sender.figures import call_stats
from shared.freezes import FreezeCounter
from shared.stats import _ROWS, Stats

LIVE = Stats(state="live", width=1280, height=720, fps=29.6, kbps=401.4)


def test_status_line() -> None:
    assert Stats(state="waiting for a sender").line() == "waiting for a sender"
    stats = replace(LIVE, face_share=0.153, restorer="small (CPU)", restore_ms=21.4, latency_ms=63.7)
    line = "1280x720 · 30 fps · 401 kb/s · face 15% · small (CPU) 21 ms · latency 64 ms"
    assert stats.line() == line
    assert replace(LIVE, restorer="off").line() == "1280x720 · 30 fps · 401 kb/s · off"
    assert replace(LIVE, lost=7).line() == "1280x720 · 30 fps · 401 kb/s · lost 7"
    assert replace(LIVE, lost=0, trouble="log stopped").line() == "log stopped · 1280x720 · 30 fps · 401 kb/s"


def test_status_line_of_a_sender() -> None:
    sending = replace(LIVE, role="send", qp_face=24.4, qp_background=37.6)
    assert sending.line() == "1280x720 · 30 fps · 401 kb/s · no face · QP 24/38"
    assert replace(sending, face_share=0.2).line() == "1280x720 · 30 fps · 401 kb/s · face 20% · QP 24/38"


def test_known_leaves_out_what_is_not() -> None:
    assert Stats().known() == {"role": "receive", "state": "waiting"}
    stats = Stats(role="send", state="live", lost=0, loss=0.0, kbps=401.123456, trouble="log stopped")
    assert stats.known() == {
        "role": "send",
        "state": "live",
        "kbps": 401.1235,
        "loss": 0.0,
        "lost": 0,
        "trouble": "log stopped",
    }
    assert json.loads(json.dumps(stats.known())) == stats.known()


def test_every_field_stands_in_the_table() -> None:
    shown = {field for _, _, formats in _ROWS for field in formats}
    assert shown | {"role", "state", "width", "height", "trouble"} == {field.name for field in fields(Stats)}
    for _, _, formats in _ROWS:
        for form in formats.values():
            assert len([field for _, field, _, _ in string.Formatter().parse(form) if field is not None]) == 1


# What a sender knows of its link


class Link:
    target, estimate, wire_bitrate = 400e3, 612e3, 455e3
    loss, rtt = 0.02, 0.05
    nacks, retransmitted, keyframe_requests = 4, 3, 1


def reports(lost: int) -> list[Any]:
    common = {"timestamp": current_datetime(), "ssrc": 1, "kind": "video", "transportId": "t"}
    sent = RTCOutboundRtpStreamStats(
        type="outbound-rtp", id="o", packetsSent=120, bytesSent=90_000, trackId="v", **common
    )
    heard = RTCRemoteInboundRtpStreamStats(
        type="remote-inbound-rtp", id="r", packetsReceived=120 - lost, packetsLost=lost, jitter=270,
        roundTripTime=0.2, fractionLost=3, **common,
    )  # fmt: skip
    return [sent, heard]


def test_the_senders_figures_come_together() -> None:
    coded = Stats(role="send", state="live", kbps=401.0, dropped=2)
    assert call_stats(coded, [], None) == coded
    assert call_stats(coded, reports(3), Link()) == replace(
        coded,
        packets=120,
        lost=3,
        jitter_ms=3.0,
        target_kbps=400.0,
        link_kbps=612.0,
        wire_kbps=455.0,
        loss=0.02,
        rtt_ms=50.0,
        nacks=4,
        retransmitted=3,
        plis=1,
    )
    assert call_stats(coded, reports(-1), None).lost == 0


def test_a_link_without_known_limit_and_round_trip() -> None:
    class Fresh(Link):
        estimate = rtt = loss = None

    stats = call_stats(Stats(role="send"), [], Fresh())
    assert (stats.link_kbps, stats.rtt_ms, stats.loss) == (None, None, None)
    assert stats.target_kbps == 400.0


# Freezes and losses


def frozen(*times: float) -> float:
    counter = FreezeCounter()
    for when in times:
        counter.shown(when)
    return counter.seconds


def test_a_gap_of_three_periods_and_150_ms_more_is_a_freeze() -> None:
    steady = [index / 30 for index in range(40)]
    assert frozen(*steady) == 0
    last = steady[-1]
    assert frozen(*steady, last + 0.18) == 0  # less than 33 + 150 ms
    assert frozen(*steady, last + 0.19) == pytest.approx(0.19)
    assert frozen(*steady, last + 1.0, last + 1.03, last + 2.03) == pytest.approx(2.0)
    slow = [float(index) for index in range(40)]
    assert frozen(*slow, 39 + 2.9) == 0
    assert frozen(*slow, 39 + 3.0) == pytest.approx(3.0)


def test_the_first_pictures_are_no_freeze() -> None:
    assert frozen(0.0, 5.0) == 0
    assert frozen(0.0, 0.03, 0.06, 3.0) == 0


def test_loss_is_that_of_the_last_seconds() -> None:
    window = LossWindow(span=3.0)
    assert window.fraction is None
    window.add(0.0, 100, 0)
    assert window.fraction is None
    for second in range(1, 4):
        window.add(second, 100 + 100 * second, 0)
    assert window.fraction == 0
    window.add(4.0, 475, 25)  # 25 of the next 100
    assert window.fraction == pytest.approx(25 / 300)
    for second in range(5, 9):
        window.add(second, 75 + 100 * second, 25)
    assert window.fraction == 0
    window.add(9.0, 975, 20)  # late ones came
    assert window.fraction == 0


def test_a_clock_that_is_set_back_is_no_freeze_and_holds_no_losses() -> None:
    steady = [index / 30 for index in range(40)]
    assert frozen(*(7200 + when for when in steady), *(3600 + when for when in steady)) == 0
    window = LossWindow(span=3.0)
    for hour, lost in ((2, 0), (1, 50)):
        for second in range(10):
            window.add(3600 * hour + second, 100 * second, lost)
    assert window.fraction == 0


def test_another_stream_counts_from_nothing() -> None:
    window = LossWindow()
    window.add(0.0, 1000, 0)
    window.add(1.0, 5, 4)
    assert window.fraction == 1
    window.add(2.0, 5, 0)
    assert window.fraction is None


@given(st.lists(st.tuples(st.floats(0, 2), st.integers(0, 50), st.integers(-5, 50)), max_size=30))
def test_loss_is_a_fraction(steps: list[tuple[float, int, int]]) -> None:
    window, when, received, lost = LossWindow(), 0.0, 0, 0
    for wait, more, gone in steps:
        when, received, lost = when + wait, received + more, max(lost + gone, 0)
        window.add(when, received, lost)
        assert window.fraction is None or 0 <= window.fraction <= 1
