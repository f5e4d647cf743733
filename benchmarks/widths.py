"""What a restorer of the fast family costs by channels and depth: random weights, timed by `benchmarks.restorer`.

    python -m benchmarks.widths [32x2 32x4 64x8 32x1+4 ...] [--size 1280x720] [--threads 1] [--pictures 25]

CHANNELSxDEPTH, or CHANNELSxDEPTH+DEEP with so many convolutions at an eighth of the resolution. Needs extra `train`.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from benchmarks import restorer
from models.networks.restorer import FastRestorer
from models.training.export import write

VARIANTS = ("16x4", "32x2", "32x3", "32x4", "64x4", "64x8", "32x1+4")


def variant(text: str) -> str:
    """What argparse takes: the text itself where it is one.

    >>> variant("32x1+4")
    '32x1+4'
    """
    if not re.fullmatch(r"\d+x\d+(\+\d+)?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no CHANNELSxDEPTH or CHANNELSxDEPTH+DEEP")
    return text


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.widths", description=__doc__.splitlines()[0])
    parser.add_argument("variants", nargs="*", type=variant, default=list(VARIANTS))
    parser.add_argument("--size", default="1280x720")
    parser.add_argument("--threads", default="1")
    parser.add_argument("--pictures", default="25")
    told = parser.parse_args(arguments)
    with TemporaryDirectory() as folder:
        files = []
        for text in told.variants:
            torch.manual_seed(1)
            channels, depth, deep = (int(part or 0) for part in re.split(r"[x+]", f"{text}+")[:3])
            net = FastRestorer(channels, depth, quantisers=False, deep=deep)
            files += ["--model", str(write(net, f"w{text}".replace("+", "-"), Path(folder), {}))]
        restorer.main([*files, "--size", told.size, "--threads", told.threads, "--pictures", told.pictures])


if __name__ == "__main__":
    main(sys.argv[1:])
