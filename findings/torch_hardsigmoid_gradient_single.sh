#!/usr/bin/env bash
# torch 2.13.0: on the CPU, the gradient of hardsigmoid in double precision is the 1/6 of
# single precision, wrong by 5e-9, where that of hardswish, of the same slope, is exact to
# the last places. Whoever checks a MobileNetV3 in double precision against central
# differences, or against relu6(x + 3) / 6, finds its squeeze-excite blocks 3e-8 off.
#
# Seen on 2026-11-28 with Python 3.11, torch 2.13.0:
#
#   hardsigmoid'(0.9) - 1/6, double: 5.0e-09
#   relu6(x + 3) / 6, the same: 0.0e+00
#   float32(1/6) - 1/6: 5.0e-09
#   hardswish'(0.9) - (2 * 0.9 + 3) / 6: less than 1e-15

set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.3.5
"$work/venv/bin/python" - <<'PYTHON'
import numpy as np
import torch
from torch.nn import functional


def slope(function):
    x = torch.tensor(0.9, dtype=torch.float64, requires_grad=True)
    return float(torch.autograd.grad(function(x), x)[0])


hard = slope(functional.hardsigmoid) - 1 / 6
plain = slope(lambda x: functional.relu6(x + 3) / 6) - 1 / 6
single = float(np.float32(1 / 6)) - 1 / 6
swish = abs(slope(functional.hardswish) - (2 * 0.9 + 3) / 6)
print(f"hardsigmoid'(0.9) - 1/6, double: {hard:.1e}")
print(f"relu6(x + 3) / 6, the same: {plain:.1e}")
print(f"float32(1/6) - 1/6: {single:.1e}")
print(f"hardswish'(0.9) - (2 * 0.9 + 3) / 6: {'less' if swish < 1e-15 else 'more'} than 1e-15")
assert abs(hard - single) < 1e-15
assert abs(plain) < 1e-16
assert swish < 1e-15
PYTHON
