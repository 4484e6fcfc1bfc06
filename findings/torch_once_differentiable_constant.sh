#!/usr/bin/env bash
# torch 2.13.0: @once_differentiable marks a backward pass of which torch takes no second
# derivative: backward() then raises. torch.autograd.grad() does not: where another part of
# the gradient can be differentiated, it takes the marked one for a constant and says
# nothing, so that Hessians and Hessian-vector products of functions with a custom layer
# are wrong by its part. (The nearest issue on record is pytorch#76185, about functions
# that keep detached values; these are marked as they should be.)
#
# Seen on 2026-11-28 with Python 3.11, torch 2.13.0:
#
#   second derivative of x^3 + x^2 at 1, which is 8:
#     torch's own operations: 8
#     a marked function for x^3, torch.autograd.grad: 2, without an error
#     its square, backward(): RuntimeError

set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.3.5
"$work/venv/bin/python" - <<'PYTHON'
import torch
from torch.autograd.function import once_differentiable


class Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return 3 * x**2 * g


def second(cube):
    x = torch.ones(1, requires_grad=True)
    (g,) = torch.autograd.grad((cube(x) + x**2).sum(), x, create_graph=True)
    (h,) = torch.autograd.grad(g.sum(), x)
    return int(h)


def raised():
    x = torch.ones(1, requires_grad=True)
    (g,) = torch.autograd.grad(Cube.apply(x).square().sum(), x, create_graph=True)
    try:
        g.sum().backward()
    except RuntimeError as error:
        return type(error).__name__
    return "nothing"


own, marked, error = second(lambda x: x**3), second(Cube.apply), raised()
print("second derivative of x^3 + x^2 at 1, which is 8:")
print(f"  torch's own operations: {own}")
print(f"  a marked function for x^3, torch.autograd.grad: {marked}, without an error")
print(f"  its square, backward(): {error}")
assert (own, marked, error) == (8, 2, "RuntimeError")
PYTHON
