"""Layers that compute in training exactly what the exported 8-bit graph computes at run time.

Features are uint8 with one fixed step and zero point everywhere; weights are signed 7-bit with one step per output
channel. Seven bits, not eight: on x86 without VNNI the runtime adds pairs of products in 16 bits, and only 7-bit
weights cannot overflow there. The activation is the quantiser's own clipping, which costs nothing at run time; its
gradient leaks outside the range as LeakyReLU's does, so no unit can die.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STEP = 1 / 32
"""Value of one code of a feature."""
ZERO = 64
"""Code of the feature value 0: features span -2 .. 5.97."""
LINEAR_ZERO = 128
"""The same for features that are summed next and should not be rectified: -4 .. 3.97."""
WEIGHT_MAX = 63
LEAK = 0.1


class _Clip(torch.autograd.Function):
    """Round to codes and clip to 0..255; backward passes 1 inside the range and LEAK outside."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, step: float, zero: int) -> Tensor:
        codes = torch.round(x / step) + zero
        ctx.save_for_backward((codes >= 0) & (codes <= 255))
        return (codes.clamp_(0, 255) - zero) * step

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, None, None]:
        (inside,) = ctx.saved_tensors
        return torch.where(inside, grad[0], LEAK * grad[0]), None, None


def quantise(x: Tensor, step: float = STEP, zero: int = ZERO) -> Tensor:
    """`x` as the nearest value that uint8 codes with this step and zero point can hold."""
    return cast(Tensor, _Clip.apply(x, step, zero))  # type: ignore[no-untyped-call]


class QuantConv(nn.Conv2d):
    """A convolution with quantised weights, bias and output.

    `pads`: zeros before and after, down and across; `step_in`: the step of its input; `zero`: the zero point of its
    output, whose step is STEP.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int,
        *,
        stride: int = 1,
        pads: tuple[int, int] | None = None,
        step_in: float = STEP,
        zero: int = ZERO,
    ) -> None:
        super().__init__(channels_in, channels_out, kernel, stride)
        self.pads = pads or (kernel // 2, kernel // 2)
        self.step_in, self.zero = step_in, zero

    def weight_step(self) -> Tensor:
        """Value of one weight code, per output channel."""
        return self.weight.detach().abs().amax((1, 2, 3)).clamp_min(1e-6) / WEIGHT_MAX

    def codes(self) -> tuple[Tensor, Tensor, Tensor]:
        """Weight codes [out, in, k, k], bias codes [out] (step: weight step * step_in), weight steps [out]."""
        step = self.weight_step()
        weight = torch.round(self.weight.detach() / step[:, None, None, None])
        return weight, torch.round(self.bias_or_zero().detach() / (step * self.step_in)), step

    def bias_or_zero(self) -> Tensor:
        """The bias; this layer always has one."""
        assert self.bias is not None
        return self.bias

    def forward(self, x: Tensor) -> Tensor:
        """float [n, in, h, w] on the input's grid of values -> float [n, out, h', w'] on the output's."""
        weight_codes, bias_codes, step = self.codes()
        # Straight through: the value is the quantised one, the gradient that of the plain parameter.
        weight = self.weight + (weight_codes * step[:, None, None, None] - self.weight).detach()
        bias = self.bias_or_zero()
        bias = bias + (bias_codes * (step * self.step_in) - bias).detach()
        first, last = self.pads
        if first == last:
            out = F.conv2d(x, weight, bias, self.stride, first)
        else:
            out = F.conv2d(F.pad(x, (first, last, first, last)), weight, bias, self.stride)
        return quantise(out, STEP, self.zero)
