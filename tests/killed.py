"""Processes that die while they write, for tests of what they leave.

Children of a server that has only imported the package: they start at once, and no
thread of the tests is copied into them.
"""

import multiprocessing
import os
import signal
import sys
from pathlib import Path

import joblib
import numpy as np
import torch

from curvdetect.storage import load, save, transform_in_shards
from curvdetect.study.networks import LeNet

__all__ = ["MOMENTS", "saving", "sharding", "started"]

MOMENTS = ("begun", "half written", "without its name", "named")
_CONTEXT = multiprocessing.get_context("forkserver")


def started(work, *arguments):
    """Start a process."""
    _CONTEXT.set_forkserver_preload(["curvdetect.storage"])
    process = _CONTEXT.Process(target=work, args=arguments, daemon=True)
    process.start()
    return process


def saving(guards, path, moment=None):
    """Save guards in turn to one file: for ever, or until the process dies."""
    loaded = [load(guard, LeNet()) for guard in guards]
    if moment is not None:
        _die_at(moment, 1)
    while True:
        for guard in loaded:
            save(guard, path)


def sharding(featurizer, X, folder, shard_size, moment, nth):
    """Measure shards, and die while the nth is written."""
    torch.set_num_threads(1)
    fitted = joblib.load(featurizer)
    _die_at(moment, nth)
    transform_in_shards(fitted, np.load(X), folder, shard_size=shard_size, verbose=0)


def _die_at(moment, nth):
    """Let this process die while, or when, the nth file of arrays is written."""
    if moment in ("begun", "half written"):
        _die_on_opening(nth, b"half of it" if moment == "half written" else b"")
    else:
        _die_on_naming(nth, after=moment == "named")


def _die_on_opening(nth, content):
    n_opened = 0

    def opened(event, arguments):
        nonlocal n_opened
        if event == "open" and arguments[1] == "w" and _is_of_arrays(arguments[0]):
            n_opened += 1
            if n_opened == nth:
                os.write(os.open(arguments[0], os.O_WRONLY), content)
                _die()

    sys.addaudithook(opened)


def _die_on_naming(nth, *, after):
    replace, n_named = Path.replace, 0

    def replaced(self, target):
        nonlocal n_named
        n_named += _is_of_arrays(self)
        if n_named == nth and not after:
            _die()
        replace(self, target)
        if n_named == nth:
            _die()

    Path.replace = replaced


def _is_of_arrays(path):
    """Say whether it is a file to be, of a guard or a shard but not their manifest."""
    return str(path).endswith(".curvdetect-partial") and "manifest" not in str(path)


def _die():
    os.kill(os.getpid(), signal.SIGKILL)
