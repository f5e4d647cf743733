"""Prometheus metrics: parsed back, over HTTP, and of a real call at both ends."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

import semcall
from models.evaluation.call_log import CallLog, read_call_log
from shared.errors import SemcallError
from shared.lines import read_lines
from shared.metrics import COUNTERS, GAUGES, StatsCollector, serve_metrics
from shared.stats import Stats

needs_signals = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 30.0  # seconds after which a test gives up
FULL = Stats(
    **{field.name: 8 for field in fields(Stats) if field.name not in ("role", "state", "restorer", "trouble")},
    role="send",
    state="live",
    restorer='fast on "CPU"\\ok',
    trouble="log stopped",
)


def parsed(text: str) -> dict[str, tuple[str, float]]:
    """Type and value of each sample; all bear HELP and a role."""
    found = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation.endswith(".")
        for sample in family.samples:
            assert sample.labels["role"] in ("send", "receive")
            found[sample.name] = family.type, sample.value
    return found


def exposed(stats: Stats) -> str:
    registry = CollectorRegistry()
    registry.register(StatsCollector(lambda: stats))
    return generate_latest(registry).decode()


def get(url: str) -> tuple[str, str]:
    """Content type and text."""
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
        return answer.headers["Content-Type"], answer.read().decode()


def refuses(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=PATIENCE).close()
    except urllib.error.URLError as error:
        return isinstance(error.reason, ConnectionRefusedError)
    return False


# The text


def test_every_figure_is_exposed() -> None:
    assert {"role", "state", "restorer", "trouble"} | GAUGES.keys() | COUNTERS.keys() == {
        field.name for field in fields(Stats)
    }
    found = parsed(exposed(FULL))
    assert len(found) == len(GAUGES) + len(COUNTERS) + 3
    for name, factor, _ in GAUGES.values():
        assert found[f"semcall_{name}"] == ("gauge", pytest.approx(8 * factor))
    for name, _ in COUNTERS.values():
        assert found[f"semcall_{name}_total"] == ("counter", 8)
    assert found["semcall_live"] == found["semcall_trouble"] == ("gauge", 1)


def test_names_and_units_follow_the_conventions() -> None:
    for name in parsed(exposed(FULL)):
        assert re.fullmatch(r"semcall_[a-z_]+", name)
        assert not re.search(r"kbps|_ms|percent", name)
    stats = Stats(kbps=400.0, jitter_ms=3.0, restored_percent=50.0, face_share=0.2, freeze_seconds=1.5)
    found = parsed(exposed(stats))
    assert found["semcall_payload_bits_per_second"] == ("gauge", 400_000)
    assert found["semcall_jitter_seconds"] == ("gauge", pytest.approx(0.003))
    assert found["semcall_restored_ratio"] == ("gauge", 0.5)
    assert found["semcall_face_bits_ratio"] == ("gauge", 0.2)
    assert found["semcall_freeze_seconds_total"] == ("counter", 1.5)


def test_what_is_not_known_is_left_out_and_nought_is_not() -> None:
    assert parsed(exposed(Stats())) == {"semcall_live": ("gauge", 0), "semcall_trouble": ("gauge", 0)}
    assert parsed(exposed(Stats(lost=0, plis=0)))["semcall_plis_total"] == ("counter", 0)


def test_the_restorers_name_is_a_label() -> None:
    (family,) = (f for f in text_string_to_metric_families(exposed(FULL)) if f.name == "semcall_restorer_info")
    assert family.samples[0].labels == {"role": "send", "restorer": FULL.restorer}


# The endpoint


def test_the_newest_figures_are_served_until_the_end() -> None:
    stats = Stats(state="live", lost=1)
    with serve_metrics("0", lambda: stats) as url:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/metrics", url)
        kind, text = get(url)
        assert kind == "text/plain; version=0.0.4; charset=utf-8"
        assert text == exposed(stats)
        stats = replace(stats, lost=2)
        assert parsed(get(url)[1])["semcall_packets_lost"] == ("gauge", 2)
        assert "process_" not in text  # figures of the call alone
        assert "python_" not in text
    assert refuses(url)


def test_it_ends_with_a_call_that_fails() -> None:
    urls = []
    with contextlib.suppress(SemcallError), serve_metrics("127.0.0.1:0", Stats) as url:
        urls.append(url)
        raise SemcallError("The camera is gone.")
    assert refuses(urls[0])


def test_a_port_in_use_is_refused() -> None:
    with serve_metrics("0", Stats) as url:
        port = url.split(":")[2].split("/")[0]
        with (
            pytest.raises(SemcallError, match=rf"Port {port} on 127\.0\.0\.1 is in use: .* with --metrics"),
            serve_metrics(port, Stats),
        ):
            pass
        assert get(url)  # the other goes on


@pytest.mark.parametrize("place", ["", "port", "70000", "-1", "127.0.0.1:", "http://127.0.0.1:9090", "::1:9090"])
def test_places_that_are_none(place: str) -> None:
    with pytest.raises(SemcallError, match="--metrics"), serve_metrics(place, Stats):
        pass


@pytest.mark.parametrize("place", ["192.0.2.7:0", "a..b:0"])
def test_addresses_of_others(place: str) -> None:
    with pytest.raises(SemcallError, match=r"not an address of this machine: .* with --metrics"):  # noqa: SIM117
        with serve_metrics(place, Stats):
            pass


@pytest.mark.parametrize(
    "command", [["receive", "--headless", "--restore", "off", "--port", "0"], ["send", "--source", "demo"]]
)
def test_both_commands_refuse_a_port_in_use(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        monkeypatch.setattr(sys, "argv", ["semcall", *command, "--metrics", str(port)])
        with pytest.raises(SystemExit) as ended:
            semcall.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(f"semcall: Port {port} on 127.0.0.1 is in use")


def test_the_library_is_loaded_only_when_asked_for() -> None:
    code = "import sys; import semcall, sender.app, receiver.app; print('prometheus_client' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    assert done.stdout == "False\n"


# A real call


def launch(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "semcall", *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def until(process: subprocess.Popen[str], pattern: str) -> str:
    """What the pattern's group finds in a line that it says."""
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if match := re.search(pattern, line):
            return match[1]
    raise AssertionError("".join(said))


NOT_IN_A_CLEAN_CALL = {
    "receive": {
        "target_kbps",
        "link_kbps",
        "wire_kbps",
        "qp_face",
        "qp_background",
        "rtt_ms",
        "restore_ms",
        "trouble",
    },
    "send": {
        "held",
        "freeze_seconds",
        "latency_ms",
        "restorer",
        "restore_ms",
        "restored_percent",
        "link_kbps",
        "trouble",
    },
}  # what the other end alone knows, or what only a loss, a restorer or a full disk tells


def expected(role: str) -> set[str]:
    """The figures that a clean call brings at this end."""
    return {field.name for field in fields(Stats)} - NOT_IN_A_CLEAN_CALL[role]


def expected_metrics(role: str) -> set[str]:
    gauges = {f"semcall_{GAUGES[name][0]}" for name in expected(role) & GAUGES.keys()}
    return gauges | {f"semcall_{COUNTERS[name][0]}_total" for name in expected(role) & COUNTERS.keys()}


@dataclass
class Held:
    """A call: what each end's metrics were at its best, and the lines that it wrote."""

    metrics: dict[str, dict[str, tuple[str, float]]]
    lines: dict[str, list[dict[str, Any]]]
    log: CallLog
    urls: list[str]


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Held]:
    folder = tmp_path_factory.mktemp("metrics")
    with contextlib.ExitStack() as stack:

        def start(*arguments: object) -> subprocess.Popen[str]:
            process = stack.enter_context(launch(*arguments))
            stack.callback(process.kill)
            return process

        answering = start(
            "receive", "--headless", "--once", "--port", 0, "--restore", "off",
            "--metrics", 0, "--stats", folder / "receive.jsonl",
        )  # fmt: skip
        urls = [until(answering, r"Metrics at (\S+)")]
        endpoint = until(answering, r"Waiting for a caller at (\S+)")
        calling = start(
            "send", "--source", "demo", "--size", "320x180", "--to", endpoint,
            "--metrics", 0, "--stats", folder / "send.jsonl",
        )  # fmt: skip
        urls.append(until(calling, r"Metrics at (\S+)"))
        metrics: dict[str, dict[str, tuple[str, float]]] = {"receive": {}, "send": {}}
        end = time.monotonic() + PATIENCE
        # The sender learns its round trip when a receiver report answers its newest sender report.
        while any(expected_metrics(role) - found.keys() for role, found in metrics.items()):
            assert time.monotonic() < end, metrics
            assert calling.poll() is None
            for role, url in zip(metrics, urls, strict=True):
                with contextlib.suppress(urllib.error.URLError, ConnectionError):
                    now = parsed(get(url)[1])
                    if len(now) >= len(metrics[role]) and now["semcall_live"][1]:
                        metrics[role] = now
            time.sleep(0.1)
        time.sleep(1.5)  # for another line with the call's figures
        calling.send_signal(signal.SIGINT)
        assert calling.wait(PATIENCE) == answering.wait(PATIENCE) == 0
        lines = {role: read_lines(folder / f"{role}.jsonl") for role in metrics}
        log = read_call_log(folder / "send.jsonl", folder / "receive.jsonl")
        yield Held(metrics, lines, log, urls)


@needs_signals
@pytest.mark.parametrize("role", ["send", "receive"])
def test_a_real_call_fills_every_figure(held: Held, role: str) -> None:
    calls = [line["call"] for line in held.lines[role] if "call" in line]
    assert len(calls) >= 2
    assert {call["role"] for call in calls} == {role}
    assert expected(role) <= set().union(*calls)
    found = held.metrics[role]
    assert expected_metrics(role) <= found.keys()
    assert found["semcall_live"] == ("gauge", 1)


@needs_signals
@pytest.mark.parametrize("role", ["send", "receive"])
def test_the_figures_of_a_real_call_are_plausible(held: Held, role: str) -> None:
    last = [line["call"] for line in held.lines[role] if "call" in line][-1]
    assert (last["state"], last["width"], last["height"]) == ("live", 320, 180)
    assert 0 < last["face_share"] < 1
    assert last["kbps"] > 10
    assert last["packets"] >= last["pictures"] > 5
    keyframe = any(line.get("keyframe") for line in held.lines[role])
    assert (last["keyframes"] >= 1) == keyframe
    # On a busy machine the first picture may give way to the next before it is shown.
    assert keyframe or (role == "receive" and last["dropped"] >= 1)
    assert 0 <= last["jitter_ms"] < 1000
    counts = [line["call"]["packets"] for line in held.lines[role] if "packets" in line.get("call", {})]
    assert counts == sorted(counts)
    if role == "send":
        assert last["qp_face"] <= last["qp_background"]
        assert last["target_kbps"] > 0
    else:
        assert 0 < last["latency_ms"] < 10_000
        assert last["restorer"] == "off"


@needs_signals
def test_both_ends_agree_on_the_packets(held: Held) -> None:
    sent = [line["call"] for line in held.lines["send"] if "call" in line][-1]["packets"]
    received = [line["call"] for line in held.lines["receive"] if "call" in line]
    assert received[-1]["packets"] == pytest.approx(sent, rel=0.5)
    assert 0 <= received[-1]["loss"] < 0.5


@needs_signals
def test_readers_of_single_pictures_need_not_know_of_the_call(held: Held) -> None:
    assert len(held.log.sent) == len(held.lines["send"])
    assert len(held.log.shown) > 0.9 * len(held.lines["receive"])


@needs_signals
def test_the_endpoints_end_with_the_call(held: Held) -> None:
    assert all(map(refuses, held.urls))
