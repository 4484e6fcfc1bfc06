#!/usr/bin/env bash
# torch 2.13.0: a generator on the CPU takes seeds of 64 bits, and initial_seed() gives them
# back, but only the lower 32 bits reach the random numbers: seeds that differ in the upper
# half alone draw the same. Whoever seeds noise with a hash, as randomised defences and
# randomised smoothing with a key do, has 2^32 noises, not 2^64, and two seeds that are
# multiples of 2^32 apart are one. NumPy's Philox takes keys of 128 bits.
#
# Seen on 2026-11-28 with Python 3.11, torch 2.13.0, numpy 2.3.5:
#
#   initial_seed: 5 and 4294967301
#   torch, seeds 5 and 5 + 2**32: the same numbers
#   torch, seeds 5 and 6: others
#   numpy Philox, keys 5 and 5 + 2**32: others

set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.3.5
"$work/venv/bin/python" - <<'PYTHON'
import numpy as np
import torch


def drawn(seed):
    return torch.randn(1000, generator=torch.Generator().manual_seed(seed))


def philox(key):
    return np.random.Generator(np.random.Philox(key=key)).standard_normal(1000)


far = 5 + 2**32
seeds = [torch.Generator().manual_seed(s).initial_seed() for s in (5, far)]
print(f"initial_seed: {seeds[0]} and {seeds[1]}")
same = torch.equal(drawn(5), drawn(far)), torch.equal(drawn(5), drawn(6))
word = {True: "the same numbers", False: "others"}
print(f"torch, seeds 5 and 5 + 2**32: {word[same[0]]}")
print(f"torch, seeds 5 and 6: {word[same[1]]}")
of_numpy = bool((philox(5) == philox(far)).all())
print(f"numpy Philox, keys 5 and 5 + 2**32: {word[of_numpy]}")
assert seeds == [5, far]
assert same == (True, False)
assert not of_numpy
PYTHON
