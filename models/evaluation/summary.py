"""The figures of a call."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from models.evaluation.call_log import CallLog
from models.evaluation.metrics import psnr
from shared.grid import Mask, mask_to_pixels
from shared.picture import I420, planes


def summarise(log: CallLog) -> dict[str, Any]:
    """Rates in kbit/s and pictures per second, latencies in milliseconds; `restored_on`: percent by rung.

    A freeze is a gap between shown pictures of more than three mean periods or the mean period + 150 ms, whichever
    is longer (W3C webrtc-stats, freezeCount).
    """
    shown = [picture.shown for picture in log.shown]
    gaps = np.diff(shown) if len(shown) > 1 else np.zeros(0)
    period = float(gaps.mean()) if len(gaps) else 0.0
    freezes = gaps[gaps > max(3 * period, period + 0.15)]
    bits = sum(picture.bits for picture in log.sent)
    restored = [picture for picture in log.shown if picture.restored]
    rungs = Counter(picture.rung for picture in restored)
    return {
        "seconds": round(log.duration, 2),
        "kbps": round(log.bitrate / 1e3, 1),
        "face_share": round(sum(picture.face_bits for picture in log.sent) / bits, 4) if bits else 0.0,
        "pictures_sent": len(log.sent),
        "pictures_shown": len(log.shown),
        "fps_sent": round(len(log.sent) / log.duration, 2) if log.duration else 0.0,
        "fps_shown": round(1 / period, 2) if period else 0.0,
        "dropped_before_encode": log.sent[-1].dropped if log.sent else 0,
        "dropped_after_decode": log.shown[-1].dropped if log.shown else 0,
        "packets_lost": log.shown[-1].lost if log.shown else 0,
        "glass_to_decoded_ms": _percentiles([(p.decoded - p.captured) * 1e3 for p in log.shown]),
        "glass_to_shown_ms": _percentiles([(p.shown - p.captured) * 1e3 for p in log.shown]),
        "freezes": len(freezes),
        "frozen_seconds": round(float(freezes.sum()), 2),
        "restored_percent": round(100 * len(restored) / len(log.shown), 1) if log.shown else 0.0,
        "restored_on": {rung: round(100 * count / len(log.shown), 1) for rung, count in rungs.most_common()},
        "restore_ms": _percentiles([picture.restore_ms for picture in restored]),
    }


def face_psnr(original: I420, other: I420, mask: Mask) -> float:
    """Luma PSNR in dB over the macroblocks in `mask` (the whole picture where it is empty), higher is better."""
    luma = planes(original)[0]
    inside = mask_to_pixels(mask, luma.shape[1], luma.shape[0]) if mask.any() else None
    return psnr(luma, planes(other)[0], inside)


def print_summary(summary: dict[str, Any], console: Console) -> None:
    """The figures as a table."""
    table = Table(title="The call, measured", show_header=False)
    rows = [
        ("bitrate", f"{summary['kbps']:.0f} kb/s over {summary['seconds']:.1f} s"),
        ("share of the bits on the face", f"{summary['face_share'] * 100:.1f}%"),
        ("pictures sent / shown", f"{summary['pictures_sent']} / {summary['pictures_shown']}"),
        ("per second sent / shown", f"{summary['fps_sent']:.1f} / {summary['fps_shown']:.1f}"),
        ("dropped before encode / after decode", _pair(summary, "dropped_before_encode", "dropped_after_decode")),
        ("glass to decoded, p50 / p95", _milliseconds(summary["glass_to_decoded_ms"])),
        ("glass to shown, p50 / p95", _milliseconds(summary["glass_to_shown_ms"])),
        ("freezes", f"{summary['freezes']} ({summary['frozen_seconds']:.1f} s)"),
        ("restored", _restored(summary)),
        ("restoration, p50 / p95", _milliseconds(summary["restore_ms"])),
    ]
    if "face_psnr_db" in summary:
        psnr = summary["face_psnr_db"]
        rows.append(("plain x264 at", f"{summary['plain_kbps']:.0f} kb/s"))
        rows.append(
            (
                f"face PSNR ({summary['pictures_compared']} pictures)",
                f"plain {psnr['plain']:.1f} dB, decoded {psnr['decoded']:.1f} dB, restored {psnr['restored']:.1f} dB",
            )
        )
    for name, value in rows:
        table.add_row(name, value)
    console.print(table)


def _percentiles(values: list[float]) -> dict[str, float] | None:
    if not values:
        return None
    return {"p50": round(float(np.percentile(values, 50)), 1), "p95": round(float(np.percentile(values, 95)), 1)}


def _milliseconds(values: dict[str, float] | None) -> str:
    return f"{values['p50']:.0f} / {values['p95']:.0f} ms" if values else "none"


def _restored(summary: dict[str, Any]) -> str:
    rungs = "".join(f"\n{percent:.0f}% by {rung}" for rung, percent in summary["restored_on"].items())
    return f"{summary['restored_percent']:.0f}% of the pictures{rungs}"


def _pair(summary: dict[str, Any], one: str, other: str) -> str:
    return f"{summary[one]} / {summary[other]}"
