"""Independent jobs, run in this process, on the cores of this machine or on a Dask cluster, behind one function."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any, TypeVar
from urllib.parse import urlsplit

import cv2

from shared.errors import SemcallError

Job = TypeVar("Job")
Result = TypeVar("Result")

_CONNECT_SECONDS = 10
_WORKERS_SECONDS = 30  # for the first worker, after the jobs are there: a cluster may start workers for them

_NO_SCHEDULER = "No Dask scheduler answers at {}; start one there (dask scheduler) or correct the address."

_NO_CODE = (
    "The cluster at {} cannot load the jobs; install this version of semcall for its scheduler and its workers."
)


@dataclass(frozen=True, slots=True)
class Failure:
    """What `run` hands over in place of the result of a job that raised SemcallError: its sentence."""

    sentence: str


class JobError(Exception):
    """A job raised what no user can mend: a bug. The message names the job, a note has the traceback."""


def run(
    jobs: Sequence[Job],
    work: Callable[[Job], Result],
    done: Callable[[int, Result | Failure], None],
    workers: int = 1,
    cluster: str | None = None,
) -> None:
    """Call `work` on every job and `done(index, result)`, here and in this thread, as soon as that job is finished.

    With `workers` of 1 the jobs run in this process, in order; with more, in that many processes, in any order; with
    `cluster` ("tcp://host:port", the scheduler's address) on the workers of a Dask cluster, and `workers` is not
    looked at. Those need this version of semcall and the files of the jobs under the same paths. Jobs, results and
    `work` are then pickled. BLAS, OpenMP and OpenCV get one thread for each job; sessions of ONNX Runtime keep the
    number that `work` opens them with.

    A job that raises SemcallError, or kills the workers of a cluster, has a Failure for a result. Any other exception
    ends the run as JobError. It ends at once, too, with KeyboardInterrupt and with what `done` raises: processes are
    killed, jobs that wait are dropped, and those that a cluster is at come to nothing. Whatever was handed to `done`
    stays.

    Raises SemcallError for less than one worker, for a process killed from outside, for a cluster without Dask
    installed here, one that cannot be reached within 10 s, has no worker after 30 s or is lost.
    """
    if workers < 1:
        raise SemcallError(f"{workers} workers cannot work; give --workers 1 or more.")
    if cluster is not None:
        _on_cluster(jobs, work, done, cluster)
    elif min(workers, len(jobs)) > 1:
        _on_cores(jobs, work, done, min(workers, len(jobs)))
    else:
        for index, job in enumerate(jobs):
            done(index, _attempt(work, job))


def _attempt(work: Callable[[Job], Result], job: Job) -> Result | Failure:
    """One job, wherever it runs."""
    cv2.setNumThreads(1)
    try:
        return work(job)
    except SemcallError as error:
        return Failure(str(error))
    except Exception as error:
        crash = JobError(f"The job {job!r} failed with {type(error).__name__}: {error}")
        crash.add_note(traceback.format_exc())  # causes do not survive pickling, notes do
        raise crash from None


def _on_cores(
    jobs: Sequence[Job],
    work: Callable[[Job], Result],
    done: Callable[[int, Result | Failure], None],
    workers: int,
) -> None:
    import joblib  # type: ignore[import-untyped]
    from joblib.externals.loky import get_reusable_executor  # type: ignore[import-untyped]
    from joblib.externals.loky.process_executor import TerminatedWorkerError  # type: ignore[import-untyped]

    with joblib.parallel_config("loky", inner_max_num_threads=1, initializer=_prepare, initargs=(os.getpid(),)):
        # One job at a time, for `done` to come at once; none ahead, or loky trips over them when stopped; no memory
        # maps, or arrays would be read-only in this mode alone.
        parallel = joblib.Parallel(
            workers, return_as="generator_unordered", batch_size=1, pre_dispatch="n_jobs", max_nbytes=None
        )
    results = parallel(joblib.delayed(_indexed)(work, index, job) for index, job in enumerate(jobs))
    try:
        for index, result in results:
            done(index, result)
    except TerminatedWorkerError as error:
        raise SemcallError(
            "A worker process was killed, perhaps for lack of memory; run again with fewer --workers."
        ) from error
    finally:
        with warnings.catch_warnings(action="ignore"):  # that not all results were taken
            results.close()
        # Joblib keeps its processes for the next call.
        get_reusable_executor(reuse=True).shutdown(wait=True, kill_workers=True)


def _indexed(work: Callable[[Job], Result], index: int, job: Job) -> tuple[int, Result | Failure]:
    return index, _attempt(work, job)


def _prepare(parent: int) -> None:
    """A worker process: Ctrl-C reaches all in a terminal, where `parent` alone answers and kills the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()


def _follow(parent: int) -> None:
    """End this process after `parent`, which may have been killed; where numbers of parents change (not Windows)."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _on_cluster(
    jobs: Sequence[Job],
    work: Callable[[Job], Result],
    done: Callable[[int, Result | Failure], None],
    address: str,
) -> None:
    """Dask's own client, not joblib's backend for it: that one waits for ever for a job whose worker was killed, and
    runs the jobs in this process where the cluster has a single core (joblib 1.6.0)."""
    try:
        import distributed
    except ImportError as error:
        raise SemcallError("--cluster needs dask: pip install 'semcall[cluster]'.") from error

    dask: Any = distributed  # half typed
    _find_scheduler(address)
    with _quiet():
        try:
            client = dask.Client(address, timeout=_CONNECT_SECONDS, set_as_default=False)
        except OSError as error:
            raise SemcallError(_NO_SCHEDULER.format(address)) from error
        with client:
            if not jobs:
                return
            _check_workers(client, address, {__name__, work.__module__})
            waiting = {client.submit(_attempt, work, job, pure=False): index for index, job in enumerate(jobs)}
            for future in dask.as_completed(list(waiting), loop=client.loop):
                index = waiting.pop(future)
                result: Result | Failure
                try:
                    result = future.result()
                except dask.KilledWorker:
                    result = Failure("The workers that tried it died, perhaps for lack of memory.")
                except dask.CancelledError as error:
                    raise SemcallError(
                        f"The cluster at {address} was lost; run again when it is back: what is done stays done."
                    ) from error
                except JobError:
                    raise
                except Exception as error:  # of sending the job or its result
                    if "deserialization of the task graph" in str(error):  # by the scheduler
                        raise SemcallError(_NO_CODE.format(address)) from error
                    raise JobError(f"The job {jobs[index]!r} failed with {type(error).__name__}: {error}") from error
                done(index, result)


def _find_scheduler(address: str) -> None:
    """Raise SemcallError unless something like a scheduler listens: Dask's client would hang where that is not so.

    >>> _find_scheduler("localhost:8786")
    Traceback (most recent call last):
        ...
    shared.errors.SemcallError: --cluster takes an address such as tcp://192.0.2.1:8786, not 'localhost:8786'.
    """
    host, port = None, None
    with suppress(ValueError):  # of brackets and ports that are none
        parts = urlsplit(address)
        if parts.scheme == "tcp":
            host, port = parts.hostname, parts.port
    if not host or not port:
        raise SemcallError(f"--cluster takes an address such as tcp://192.0.2.1:8786, not {address!r}.")
    try:
        with socket.create_connection((host, port), _CONNECT_SECONDS) as connection:
            greeted = connection.recv(1)  # a scheduler speaks first; its web page, a likely mix-up, does not
    except OSError as error:
        raise SemcallError(_NO_SCHEDULER.format(address)) from error
    if not greeted:
        raise SemcallError(_NO_SCHEDULER.format(address))


def _check_workers(client: Any, address: str, modules: set[str]) -> None:
    """Raise SemcallError unless there are workers that can import `modules`: one that cannot starts over for ever."""
    attraction = client.submit(int, pure=False)  # some clusters start workers only when there is work
    try:
        client.wait_for_workers(1, timeout=_WORKERS_SECONDS)
        for module in sorted(modules):
            client.run(import_module, module)
    except TimeoutError as error:
        raise SemcallError(f"The cluster at {address} has no worker; start some (dask worker {address}).") from error
    except ImportError as error:
        raise SemcallError(_NO_CODE.format(address)) from error
    finally:
        attraction.release()


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Dask's loggers: they print what is raised here as sentences, and tracebacks when a client leaves."""
    names = [name for name in logging.root.manager.loggerDict if name.partition(".")[0] in ("distributed", "tornado")]
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
