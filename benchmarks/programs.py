"""The real programs as processes of their own, for one call across one link."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from benchmarks.calls import Figures, figures, read_call
from benchmarks.link import LinkSpec
from benchmarks.namespaces import Namespaces
from benchmarks.relay import Relay, WhipProxy
from benchmarks.scenarios import Scenario
from shared.errors import SemcallError

ROOT = Path(__file__).resolve().parents[1]
_PATIENCE = 40.0  # seconds for starting and ending a program
_TOKEN = "benchmark"


class UserSpace(Relay):
    """Both ends on this machine's own network, candidates rewritten by a proxy."""

    host = "127.0.0.1"
    receiver: tuple[str, ...] = ()
    sender: tuple[str, ...] = ()

    def __init__(self, forward: LinkSpec, back: LinkSpec) -> None:
        super().__init__(forward, back)
        self._proxy: WhipProxy | None = None

    async def __aenter__(self) -> UserSpace:
        return self

    async def put_before(self, url: str) -> str:
        """The address to call instead of the receiver's own."""
        self._proxy = WhipProxy(url, self)
        await self._proxy.start()
        return self._proxy.url

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._proxy is not None:
            await self._proxy.stop()
        self.close()


class Program:
    """A process, and what it says."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process, self.said = process, ""

    @classmethod
    async def start(cls, *arguments: object, through: Sequence[str] = ()) -> Program:
        """`python -m ARGUMENTS`, started by the command `through`, if any."""
        return cls(
            await asyncio.create_subprocess_exec(
                *through, sys.executable, "-m", *map(str, arguments),
                cwd=ROOT, env=os.environ | {"PYTHONUNBUFFERED": "1", "COLUMNS": "400"},
                stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            )
        )  # fmt: skip

    async def says(self, pattern: str) -> str:
        """Until it says what `pattern` finds; its first group."""
        async with asyncio.timeout(_PATIENCE):
            while (match := re.search(pattern, self.said)) is None:
                if not await self._read():
                    raise SemcallError(f"A program of the benchmark ended early: {self.said.strip()[-300:]}")
        return match[1]

    async def ends(self, within: float) -> None:
        """Until it ends by itself; then, or after `within` seconds, it is gone."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                while await self._read():
                    pass
                await self._process.wait()
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def _read(self) -> bool:
        assert self._process.stdout is not None
        chunk = await self._process.stdout.read(4096)
        self.said += chunk.decode("utf-8", "replace")
        return bool(chunk)


async def hold(
    receive: Sequence[object],
    send: Callable[[str], Awaitable[Sequence[object]]],
    seconds: float,
    through: tuple[Sequence[str], Sequence[str]] = ((), ()),
) -> str:
    """A call of two programs, until both have ended; what the sender said. Raises SemcallError when one ends early.

    `receive`, `send`: arguments of `python -m`, of the latter for a receiver's address; `seconds`: of the call;
    `through`: commands that start receiver and sender.
    """
    programs: list[Program] = []
    try:
        programs.append(await Program.start(*receive, through=through[0]))
        url = await programs[0].says(r"Waiting for a caller at (http://\S+/whip)\s")
        programs.append(await Program.start(*await send(url), through=through[1]))
        await programs[1].ends(seconds + _PATIENCE)
        await programs[0].ends(5)
    finally:
        for started in programs:
            await started.ends(0)
    return programs[1].said


async def run(
    scenario: Scenario, stock: bool, source: str, seconds: float, where: Path, namespaces: bool = False
) -> Figures:
    """One call of one kind across one link. Raises SemcallError when no call comes about.

    `where`: a directory for what both ends write; `namespaces`: see benchmarks/namespaces.py.
    """
    sender, receiver = where / "sender.jsonl", where / "receiver.jsonl"
    for path in (sender, receiver):
        path.unlink(missing_ok=True)
    kind = Namespaces if namespaces else UserSpace
    async with kind(scenario.forward, scenario.back) as between:
        ours = ("semcall", "receive", "--headless", "--once", "--restore", "off", "--port", 0, "--token", _TOKEN)
        program = ("benchmarks.stock", "receive") if stock else ours
        to_receive = (*program, "--host", between.host, "--stats", receiver)

        async def send(url: str) -> Sequence[object]:
            call = ("send", "--to", await between.put_before(url), "--source", source, "--seconds", seconds)
            rate = () if stock else ("--bitrate", f"{scenario.bitrate:.0f}", "--token", _TOKEN)
            return ("benchmarks.stock" if stock else "semcall", *call, *rate, "--stats", sender)

        said = await hold(to_receive, send, seconds, (between.receiver, between.sender))
    counts = between.forward.counts
    if between.began is None or not counts.media:
        raise SemcallError(f"No call came about: {said.strip()[-300:]}")
    found = figures(
        read_call(sender, receiver, between.began, counts), counts, scenario.limit, scenario.steps, scenario.outage
    )
    return replace(found, keyframes_after=None) if stock else found  # stock does not say
