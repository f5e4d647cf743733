"""Rate-quality plots."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from models.evaluation.study.protocol import CURVE_RATES, CURVE_SHARES
from models.evaluation.study.results import METRICS, NONE, Metric, Results, Setting, average
from shared.errors import SemcallError

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

PLOTTED = ("psnr", "ssim", "distance", "brisque")
AREAS = {"face": "face patches", "frame": "whole frames"}

# Okabe and Ito's colours, told apart by colour-blind readers too: one per share; the line's style is the restorer.
_COLOURS = ("#555555", "#0072b2", "#d55e00")
_MARKERS = ("o", "s", "^")
_STYLES = ("-", "--", ":", "-.")


def draw_plots(results: Results, distance: str) -> dict[str, bytes]:
    """A PNG per area, "face.png" and "frame.png": PSNR, SSIM, distance and BRISQUE over the rate on a log axis.

    One line per share (0, 25, 45) and restorer through the rates at which any clip has it, at least two; the mean
    over the clips that have all points of all lines. `distance`: what the perceptual distance is, "" without a name.
    An area without any line has no plot. Raises SemcallError where matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise SemcallError("Plots need matplotlib: pip install 'semcall[evaluate]'.") from error

    lines = _lines(results)
    clips = results.complete(setting for line in lines.values() for setting in line)
    plots = {}
    for area, name in AREAS.items():
        figure = Figure(figsize=(11, 8), dpi=110, layout="constrained")
        drawn = False
        for panel, key in zip(figure.subplots(2, 2).flat, PLOTTED, strict=True):
            drawn |= _panel(panel, results, clips, lines, f"{area}.{key}", METRICS[key])
        if not drawn:
            continue
        legend: dict[str, Artist] = {}
        for panel in figure.axes:
            for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
                legend.setdefault(label, handle)
        figure.legend(
            list(legend.values()), list(legend), loc="outside lower center", ncols=len(CURVE_SHARES), frameon=False
        )
        subject = f"Mean of {len(clips)} clip{'s' * (len(clips) != 1)}, {name}"
        figure.suptitle(f"{subject}; distance is {distance}" if distance else subject, fontsize=11)
        file = io.BytesIO()
        figure.savefig(file, format="png", metadata={"Software": None})  # no version: equal input, equal file
        plots[f"{area}.png"] = file.getvalue()
    return plots


def _lines(results: Results) -> dict[tuple[int, str], list[Setting]]:
    """The settings of every line, by share and restorer."""
    lines = {}
    for restorer in [NONE, *results.restorers]:
        for share in CURVE_SHARES:
            settings = [Setting(kbps, share, restorer) for kbps in CURVE_RATES]
            settings = [setting for setting in settings if results.complete([setting])]
            if len(settings) > 1:
                lines[share, restorer] = settings
    return lines


def _panel(
    panel: Axes,
    results: Results,
    clips: list[str],
    lines: dict[tuple[int, str], list[Setting]],
    field: str,
    metric: Metric,
) -> bool:
    _, values = results.sample(clips, [setting for line in lines.values() for setting in line], field)
    drawn = False
    for (share, restorer), settings in lines.items():
        means = [average(values[setting]) for setting in settings]
        points = [(setting.kbps, mean) for setting, mean in zip(settings, means, strict=True) if mean is not None]
        if len(points) < len(settings):
            continue
        k = CURVE_SHARES.index(share)
        style = _STYLES[[NONE, *results.restorers].index(restorer) % len(_STYLES)]
        rates, heights = zip(*points, strict=True)
        panel.plot(rates, heights, style, color=_COLOURS[k], marker=_MARKERS[k], ms=4, label=_name(share, restorer))
        drawn = True
    panel.set_xscale("log")
    panel.set_xticks(CURVE_RATES, [f"{rate}" for rate in CURVE_RATES])
    panel.minorticks_off()
    panel.set_xlabel("rate, kb/s at 1280x720")
    better = "higher" if metric.higher else "lower"
    panel.set_ylabel(f"{metric.label} ({better} is better{metric.arrow})")
    panel.grid(alpha=0.3)
    if not drawn:
        panel.text(0.5, 0.5, "not measured", ha="center", va="center", transform=panel.transAxes, color="#555555")
    return drawn


def _name(share: int, restorer: str) -> str:
    coding = f"semcall, share {share}%" if share else "plain x264"
    return coding if restorer == NONE else f"{coding}, restored by {restorer}"
