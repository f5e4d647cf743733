"""Where and how a fit runs: rates, optimisers, precision, and two processes that train one network."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the train extra")
pytest.importorskip("lightning_fabric", reason="needs the train extra")

from rich.console import Console  # noqa: E402

from models.training.fit import Fit, halved, launched  # noqa: E402

ROOT = Path(__file__).parents[1]
QUIET = Console(quiet=True)


def batch(step: int) -> tuple[Any, ...]:
    return (torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(step)),)


def fit(folder: Path, loss: Any = None, steps: int = 9, **options: Any) -> Fit:
    torch.manual_seed(0)

    def flat(net: Any, tensors: Any) -> Any:
        return (net(tensors[0]) - 1).pow(2).mean()

    net = torch.nn.Conv2d(3, 3, 3)
    return Fit("small", net, folder, {}, batch, loss or flat, steps=steps, rate=0.1, ema=0.9, **options)


def test_rates_are_halved_at_the_end_of_epochs() -> None:
    """The paper's: ten epochs in full, then half, and half again after every ten more."""
    assert [halved(step, 10, 10) for step in (0, 9, 10, 19, 20, 39)] == [1, 1, 0.5, 0.5, 0.25, 0.125]
    assert [halved(step, 3, 1) for step in range(6)] == [1, 1, 1, 0.5, 0.25, 0.125]


def test_a_fit_halves_its_rate_and_is_plain_adam_when_told(tmp_path: Path) -> None:
    rates = []

    def loss(net: Any, tensors: Any) -> Any:
        rates.append(run._optimiser.param_groups[0]["lr"])
        return net(tensors[0]).pow(2).mean()

    run = fit(tmp_path / "paper", loss, halve=(4, 2), momentum=0.9)
    assert run.run(QUIET)
    assert rates == pytest.approx([0.1] * 4 + [0.05] * 2 + [0.025] * 2 + [0.0125])
    assert type(run._optimiser) is torch.optim.Adam
    assert run._optimiser.defaults["betas"] == (0.9, 0.999)
    assert run._optimiser.defaults["weight_decay"] == 0
    rates.clear()
    run = fit(tmp_path / "usual", loss)
    assert run.run(QUIET)
    assert rates[0] < rates[1] > rates[-1], "it rises, then falls"
    assert type(run._optimiser) is torch.optim.AdamW


@pytest.mark.parametrize("bf16", [False, True])
def test_convolutions_run_in_the_precision_asked_for_on_float_weights(tmp_path: Path, bf16: bool) -> None:
    run = fit(tmp_path, bf16=bf16)
    seen = set()
    run.net.register_forward_hook(lambda _net, _inputs, output: seen.add(output.dtype))
    assert run.run(QUIET)
    assert seen == {torch.bfloat16 if bf16 else torch.float32}
    assert {value.dtype for value in run.ema.values()} == {torch.float32}


def test_one_process_takes_the_batches_by_their_steps_and_needs_no_fabric_to_read_what_it_wrote(
    tmp_path: Path,
) -> None:
    seen = []

    def loss(net: Any, tensors: Any) -> Any:
        seen.append(tensors[0])
        return net(tensors[0]).pow(2).mean()

    run = fit(tmp_path, loss, steps=3)
    assert run.run(QUIET)
    assert all(torch.equal(found, batch(step)[0]) for step, found in enumerate(seen))
    state = torch.load(tmp_path / "small.pt", weights_only=True)
    assert set(state) == {
        "about", "net", "ema", "optimiser", "step", "seconds", "smooth", "length", "watched", "facts"
    }  # fmt: skip
    torch.nn.Conv2d(3, 3, 3).load_state_dict(state["ema"])


def test_without_torchrun_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    fabric = launched()
    assert (fabric.world_size, fabric.global_rank, fabric.is_global_zero) == (1, 0, True)


TWO = """
import sys
from pathlib import Path

import torch
from rich.console import Console

from models.networks.features import FeatureNet
from models.networks.generator import PaperGenerator
from models.networks.planes_contract import PlanesContract
from models.networks.restorer import FastRestorer
from models.training.fit import Fit, launched
from models.training.restoration.adversary import Adversary
from models.training.restoration.objective import Objective

folder = Path(sys.argv[1])
fabric = launched()
torch.set_num_threads(1)
torch.save({}, folder / f"no-weights{fabric.global_rank}.pth")


class Eye(FeatureNet):
    def maps(self, x):
        return [torch.nn.functional.avg_pool2d(x, 2)]


asked = []


def batch(step):
    asked.append(step)
    chance = torch.Generator().manual_seed(step)
    y, true_y = (torch.randint(0, 255, (4, 1, 32, 32), generator=chance).float() for _ in range(2))
    uv, true_uv = (torch.randint(90, 160, (4, 2, 16, 16), generator=chance).float() for _ in range(2))
    return y, uv, true_y, true_uv, torch.full((4, 1, 2, 2), 34.0), torch.zeros(2, 1, 2, 2)


torch.manual_seed(1)
net = FastRestorer(24, 1)
adversary = Adversary(fabric=fabric)
begun = {name: value.clone() for name, value in adversary.net.state_dict().items()}
objective = Objective(
    Eye(folder / f"no-weights{fabric.global_rank}.pth"), 0.5, 0.2, adversary=(0.1, adversary)
)
shown = []
fit = Fit(
    "pair", net, folder, {}, batch, objective, steps=6, rate=1e-3, ema=0.9, watched=objective, checkpoint_every=3,
    show=lambda net, step: shown.append(step), show_every=2, fabric=fabric,
)
done = [fit.run(Console(), minutes=0), fit.run(Console())]
paper = PlanesContract(PaperGenerator(8, 1))
rates = {"steps": 2, "rate": 1e-3, "ema": 0.9, "halve": (1, 1), "momentum": 0.9}
assert Fit("paper", paper, folder, {}, batch, Objective(None, 1.0, 0.2), fabric=fabric, **rates).run(Console())
torch.save(
    {"world": fabric.world_size, "asked": asked, "done": done, "shown": shown, "net": net.state_dict(),
     "ema": fit.ema, "begun": begun, "adversary": adversary.net.state_dict(), "step": fit.step,
     "paper": paper.state_dict()},
    folder / f"rank{fabric.global_rank}.pt",
)
"""


@pytest.mark.skipif(
    not (torch.distributed.is_available() and torch.distributed.is_gloo_available()),
    reason="this PyTorch is built without gloo",
)
def test_two_processes_train_one_network(tmp_path: Path) -> None:
    """Under torchrun, on the CPU: other batches, the same weights of both networks, one that writes and speaks."""
    script = tmp_path / "two.py"
    script.write_text(TWO)
    found = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", script, tmp_path],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr[-3000:]
    first, second = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    assert first["world"] == second["world"] == 2
    assert first["asked"] == [0, 2, 4, 6, 8, 10, 0, 2]
    assert second["asked"] == [1, 3, 5, 7, 9, 11, 1, 3]
    assert first["done"] == second["done"] == [False, True]
    assert first["step"] == second["step"] == 6
    for part in ("net", "ema", "adversary", "begun", "paper"):
        for name, value in first[part].items():
            assert torch.equal(value, second[part][name]), (part, name)
    assert any(not torch.equal(value, first["begun"][name]) for name, value in first["adversary"].items())
    assert (first["shown"], second["shown"]) == ([2, 4, 6], [])
    assert found.stdout.count("pair step 3:") == found.stdout.count("pair step 6:") == 1
    written = torch.load(tmp_path / "pair.pt", weights_only=True)
    assert all(torch.equal(value, first["net"][name]) for name, value in written["net"].items())
