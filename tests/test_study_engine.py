"""Jobs of a study: the same results in this process, on cores and on a cluster, as they come, and how they fail."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import pytest

from models.evaluation.study import engine
from models.evaluation.study.engine import Failure, JobError, run
from shared.errors import SemcallError

ROOT = Path(__file__).resolve().parents[1]
MODES = ("process", "cores", "cluster")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A real cluster: a scheduler here and two worker processes."""
    dask: Any = pytest.importorskip("dask.distributed")
    with (
        importlib.import_module("dask.config").set({"distributed.scheduler.allowed-failures": 0}),
        dask.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            memory_limit=None,  # else each gets its cores' part of the machine's, and pauses near that
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
        ) as running,
    ):
        yield running


@pytest.fixture
def address(cluster: Any) -> str:
    """Of the cluster, with both workers there: an earlier test may have cost one of them a restart."""
    cluster.wait_for_workers(2, timeout=60)
    return str(cluster.scheduler_address)


@pytest.fixture(params=MODES)
def where(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The arguments of `run` for a mode."""
    if request.param == "cluster":
        return {"cluster": request.getfixturevalue("address")}
    return {"workers": 2 if request.param == "cores" else 1}


def work(job: tuple[str, Any]) -> Any:
    kind, value = job
    if kind == "square":
        return value * value
    if kind == "user":
        raise SemcallError(f"The clip {value} is broken; leave it out.")
    if kind == "bug":
        return {}[value]
    if kind == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "sleep":
        time.sleep(value)
    if kind == "touch":
        Path(value).touch()
    if kind == "wait":
        until = time.monotonic() + 20
        while not Path(value).exists():
            assert time.monotonic() < until, "nobody was told of the other job"
            time.sleep(0.01)
    if kind == "where":
        blas = os.environ.get("OMP_NUM_THREADS"), os.environ.get("OPENBLAS_NUM_THREADS")
        time.sleep(0.2)  # or one worker takes all
        return os.getpid(), blas, cv2.getNumThreads()
    return kind


def collected(jobs: list[tuple[str, Any]], where: dict[str, Any]) -> dict[int, Any]:
    results: dict[int, Any] = {}

    def done(index: int, result: Any) -> None:
        assert index not in results
        results[index] = result

    run(jobs, work, done, **where)
    return results


def processes() -> list[tuple[int, int, str]]:
    """Parent, group and command of all processes."""
    listed = subprocess.run(["ps", "-ewwo", "ppid=,pgid=,args="], capture_output=True, text=True, check=True).stdout
    rows = (line.split(maxsplit=2) for line in listed.splitlines())
    return [(int(parent), int(group), command) for parent, group, command in rows]


def children() -> list[str]:
    """Worker processes of `run` on cores."""
    return [args for parent, _, args in processes() if parent == os.getpid() and "LokyProcess" in args]


def test_results_are_the_same_everywhere_and_arrive_as_jobs_finish(where: dict[str, Any], tmp_path: Path) -> None:
    mark = tmp_path / "done"
    jobs = [("wait", mark), ("square", 3), ("user", "kim"), ("square", 5)]
    if where == {"workers": 1}:  # in order: a job can only wait for those before it
        jobs = jobs[1:] + jobs[:1]
    arrived = []

    def done(index: int, result: Any) -> None:
        arrived.append((jobs[index], result))
        if len(arrived) == 3:
            mark.touch()
            assert len(children()) == (2 if where == {"workers": 2} else 0)

    run(jobs, work, done, **where)
    assert arrived[-1] == (("wait", mark), "wait")
    results = {job: result for job, result in arrived if job[0] != "wait"}
    assert results == {
        ("square", 3): 9,
        ("user", "kim"): Failure("The clip kim is broken; leave it out."),
        ("square", 5): 25,
    }
    assert len(arrived) == 4
    assert children() == []


def test_a_bug_ends_the_run_and_names_the_job(where: dict[str, Any]) -> None:
    with pytest.raises(JobError, match=r"The job \('bug', 'kim'\) failed with KeyError: 'kim'") as caught:
        collected([("bug", "kim"), ("square", 1)], where)
    assert any("return {}[value]" in note for note in caught.value.__notes__)


def test_what_done_raises_ends_the_run_at_once(where: dict[str, Any], tmp_path: Path) -> None:
    jobs = [("square", 2), *(("sleep", 0.4),) * 2, *(("touch", tmp_path / str(index)) for index in range(20))]
    order = []

    def done(index: int, result: Any) -> None:
        order.append(result)
        raise KeyboardInterrupt

    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run(jobs, work, done, **where)
    assert time.monotonic() - start < 5
    assert order == [4]
    time.sleep(0.5)  # a cluster finishes what it was at
    assert len(list(tmp_path.iterdir())) < 20
    assert children() == []


@pytest.mark.parametrize("mode", MODES[1:])
def test_a_worker_is_a_process_with_one_thread(mode: str, request: pytest.FixtureRequest) -> None:
    where = {"cluster": request.getfixturevalue("address")} if mode == "cluster" else {"workers": 2}
    found = collected([("where", None)] * 4, where).values()
    numbers = {number for number, _, _ in found}
    assert len(numbers) == 2
    assert os.getpid() not in numbers
    assert {(blas, threads) for _, blas, threads in found} == {(("1", "1"), 1)}
    assert children() == []


def test_no_jobs_and_one_job_start_no_process() -> None:
    assert collected([], {"workers": 4}) == {}
    ((process, _, _),) = collected([("where", None)], {"workers": 4}).values()
    assert process == os.getpid()


def test_no_jobs_on_a_cluster(address: str) -> None:
    assert collected([], {"cluster": address}) == {}


def test_a_killed_process_is_told_in_one_sentence() -> None:
    with pytest.raises(SemcallError, match="A worker process was killed, perhaps for lack of memory; run again with"):
        collected([("die", None), ("sleep", 0.1)], {"workers": 2})
    assert children() == []


def test_a_job_that_kills_its_workers_fails_alone_on_a_cluster(address: str) -> None:
    results = collected([("die", None), ("square", 3)], {"cluster": address})
    assert results == {0: Failure("The workers that tried it died, perhaps for lack of memory."), 1: 9}


def test_workers_below_one_are_refused() -> None:
    with pytest.raises(SemcallError, match="give --workers 1 or more"):
        collected([("square", 1)], {"workers": 0})


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of a server that takes connections and says nothing, as web pages do."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_a_cluster_that_is_none(
    silent: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr(engine, "_CONNECT_SECONDS", 0.5)
    start = time.monotonic()
    for port in (unused_port(), silent):
        with pytest.raises(SemcallError, match=rf"No Dask scheduler answers at tcp://127.0.0.1:{port}; start one"):
            collected([("square", 1)], {"cluster": f"tcp://127.0.0.1:{port}"})
    for wrong in ("", "localhost:8786", "tcp://localhost", "tcp://:8786", "tcp://[::1", "tcp://localhost:x", "a:b:c"):
        with pytest.raises(SemcallError, match=r"takes an address such as tcp://192\.0\.2\.1:8786, not "):
            collected([("square", 1)], {"cluster": wrong})
    assert time.monotonic() - start < 5
    assert capfd.readouterr() == ("", "")


def test_a_cluster_without_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    dask: Any = pytest.importorskip("distributed")
    monkeypatch.setattr(engine, "_WORKERS_SECONDS", 0.3)
    with (
        dask.LocalCluster(n_workers=0, processes=False, protocol="tcp", dashboard_address="127.0.0.1:0") as cluster,
        pytest.raises(SemcallError, match=r"has no worker; start some \(dask worker tcp://"),
    ):
        collected([("square", 1)], {"cluster": cluster.scheduler_address})


def test_a_cluster_that_is_lost(capfd: pytest.CaptureFixture[str]) -> None:
    dask: Any = pytest.importorskip("distributed")
    arrived = []
    with dask.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, protocol="tcp", dashboard_address="127.0.0.1:0"
    ) as cluster:

        def done(index: int, result: Any) -> None:
            arrived.append(result)
            cluster.close()

        with pytest.raises(SemcallError, match="was lost; run again when it is back: what is done stays done"):
            run([("square", 2), ("sleep", 0.5), ("square", 3)], work, done, cluster=cluster.scheduler_address)
    assert arrived == [4]
    assert capfd.readouterr() == ("", "")


def test_dask_logs_nothing_meanwhile(caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("distributed")
    with engine._quiet():
        logging.getLogger("distributed.client").error("a traceback")
    assert caplog.messages == []
    logging.getLogger("distributed.client").error("heard again")
    assert caplog.messages == ["heard again"]


def test_a_cluster_without_dask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(SemcallError, match=r"--cluster needs dask: pip install 'semcall\[cluster\]'\."):
        collected([("square", 1)], {"cluster": "tcp://127.0.0.1:8786"})


def test_a_cluster_without_the_code_of_the_jobs(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "only_here.py").write_text("def work(job):\n    return job\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module("only_here")
    with pytest.raises(SemcallError, match=r"cannot load the jobs; install this version of semcall for its sched"):
        run([1, 2], module.work, lambda index, result: None, cluster=address)


STOPPED = """
import sys, time
from models.evaluation.study.engine import run

def work(job):
    open(f"{sys.argv[1]}/{job}", "w").close()
    time.sleep(60 if job else 0)
    return job

if __name__ == "__main__":
    run(range(6), work, lambda index, result: print("done", index, flush=True), workers=2)
"""


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_stopped_leaves_no_process(tmp_path: Path, stop: signal.Signals) -> None:
    code = STOPPED.replace("sys.argv[1]", repr(str(tmp_path)))
    running = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert running.stdout is not None
        assert running.stdout.readline() == "done 0\n"
        until = time.monotonic() + 20
        while len(list(tmp_path.iterdir())) < 3 and time.monotonic() < until:  # both workers are in the long jobs
            time.sleep(0.02)
        if stop == signal.SIGINT:
            os.killpg(running.pid, stop)  # a terminal's Ctrl-C reaches them all
        else:
            running.send_signal(stop)
        output, errors = running.communicate(timeout=15)
        until = time.monotonic() + 5
        while (left := [row for row in processes() if row[1] == running.pid]) and time.monotonic() < until:
            time.sleep(0.02)  # those that clean up go after it
        assert left == []
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
    assert output == ""
    assert len(list(tmp_path.iterdir())) == 3
    if stop == signal.SIGINT:
        assert errors.count("Traceback") == 1
        assert errors.rstrip().endswith("KeyboardInterrupt")
