"""A call's figures as Prometheus text (exposition format 0.0.4) over HTTP. Import it only where it is asked for.

Names follow Prometheus' conventions: base units, ratios of 0..1, `_total` for what only grows. Every sample bears the
label `role`, "send" or "receive"; what is not known has none.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric

from shared.errors import SemcallError
from shared.signalling_listen import bind_problem, parse_listen
from shared.stats import Stats

_K: Final = 1e3  # kbit/s
_MS: Final = 1e-3
GAUGES: Final[dict[str, tuple[str, float, str]]] = {
    # field of Stats: (name, factor to the base unit, help)
    "width": ("picture_width_pixels", 1, "Width of the newest picture."),
    "height": ("picture_height_pixels", 1, "Height of the newest picture."),
    "fps": ("pictures_per_second", 1, "Pictures coded or shown per second."),
    "kbps": ("payload_bits_per_second", _K, "Video payload coded or received."),
    "target_kbps": ("target_bits_per_second", _K, "Rate that the encoder is asked for."),
    "link_kbps": ("link_bits_per_second", _K, "Rate that the link is believed to carry, headers included."),
    "wire_kbps": ("wire_bits_per_second", _K, "Rate sent, headers and retransmissions included."),
    "face_share": ("face_bits_ratio", 1, "Share of the bits on the face."),
    "qp_face": ("face_quantiser", 1, "Mean H.264 quantiser in the newest picture's face."),
    "qp_background": ("background_quantiser", 1, "Mean H.264 quantiser outside the newest picture's face."),
    "loss": ("packet_loss_ratio", 1, "Fraction of the RTP packets lost lately."),
    # No counter: it falls when a packet comes late, which Prometheus would take for a restart.
    "lost": ("packets_lost", 1, "RTP packets lost on the way, sent again or not."),
    "jitter_ms": ("jitter_seconds", _MS, "Interarrival jitter at the receiver, RFC 3550."),
    "rtt_ms": ("round_trip_seconds", _MS, "Round trip between the two ends."),
    "latency_ms": ("latency_seconds", _MS, "Median time from capture to shown, by two clocks."),
    "restore_ms": ("restoration_seconds", _MS, "Median time of one restoration."),
    "restored_percent": ("restored_ratio", 1e-2, "Fraction of the pictures shown that were restored."),
}
"""What goes up and down."""
COUNTERS: Final[dict[str, tuple[str, str]]] = {
    # field of Stats: (name before _total, help)
    "packets": ("rtp_packets", "RTP packets sent or received."),
    "nacks": ("nacks", "RTP packets asked for again, every request counted."),
    "retransmitted": ("packets_retransmitted", "RTP packets sent again, or those of them that came in time."),
    "plis": ("plis", "Keyframes asked for."),
    "keyframes": ("keyframes", "Keyframes coded or shown."),
    "pictures": ("pictures", "Pictures coded or shown."),
    "dropped": ("pictures_dropped", "Pictures captured and not coded, or decoded and not shown."),
    "held": ("pictures_held", "Pictures damaged by a loss and therefore not shown."),
    "skipped": ("pictures_skipped", "Pictures left out for a full link, or given up for lost packets."),
    "freeze_seconds": ("freeze_seconds", "Time in which the picture stood still."),
}
"""What only grows during a call; each call begins at 0, a reset to Prometheus."""


class StatsCollector:
    """Turns `stats()` into metrics at every scrape; called from any thread. For a prometheus_client registry."""

    def __init__(self, stats: Callable[[], Stats]) -> None:
        self._stats = stats

    def describe(self) -> list[Metric]:
        """Nothing: else registering it would ask for figures before there is a call."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The metrics now."""
        stats = self._stats()
        role = [stats.role]
        live = GaugeMetricFamily("semcall_live", "1 during a call, else 0.", labels=["role"])
        live.add_metric(role, float(stats.state == "live"))
        yield live
        trouble = GaugeMetricFamily(
            "semcall_trouble", "1 where a file that was asked for broke off.", labels=["role"]
        )
        trouble.add_metric(role, float(bool(stats.trouble)))
        yield trouble
        for field, (name, factor, text) in GAUGES.items():
            if (value := getattr(stats, field)) is not None:
                gauge = GaugeMetricFamily(f"semcall_{name}", text, labels=["role"])
                gauge.add_metric(role, value * factor)
                yield gauge
        for field, (name, text) in COUNTERS.items():
            if (value := getattr(stats, field)) is not None:
                counter = CounterMetricFamily(f"semcall_{name}", text, labels=["role"])
                counter.add_metric(role, value)
                yield counter
        if stats.restorer is not None:
            info = InfoMetricFamily(
                "semcall_restorer", "The restorer at work, or why there is none.", labels=["role"]
            )
            info.add_metric(role, {"restorer": stats.restorer})
            yield info


@contextlib.contextmanager
def serve_metrics(place: str, stats: Callable[[], Stats]) -> Iterator[str]:
    """Serve `stats()` at `[HOST:]PORT` while the context is open, from threads of its own; yields the URL.

    Without a host only programs of this machine get it; port 0 takes any that is free. Raises SemcallError where
    nobody can listen there.
    """
    host, port = parse_listen(place, "--metrics")
    registry = CollectorRegistry()
    registry.register(StatsCollector(stats))
    try:
        server, thread = start_http_server(port, host, registry)
    except (OSError, UnicodeError) as error:  # the latter for names that are none
        raise SemcallError(bind_problem(host, port, error, "--metrics", "--metrics")) from error
    try:
        named = f"[{host}]" if ":" in host else host
        yield f"http://{named}:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=2)
