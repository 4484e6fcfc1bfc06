"""The queue before the guard: order, room, failures, the end."""

import threading
from concurrent.futures import wait

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curvdetect.serving._batching import Batcher, ClosedError, FullError


class Looking:
    """Looks at images, which are numbers, once it is let; remembers what it saw."""

    def __init__(self):
        self.go, self.began = threading.Event(), threading.Event()
        self.seen, self.busy = [], threading.Lock()

    def __call__(self, images):
        assert self.busy.acquire(blocking=False)  # nobody else is looking
        try:
            self.began.set()
            self.go.wait()
            self.seen.append(images.tolist())
            if (images < 0).any():
                raise ValueError(f"cannot look at {images.min():g}")
            return [{"twice": 2 * value} for value in images.tolist()]
        finally:
            self.busy.release()


def numbers(*values):
    return np.array(values, np.float32)


@given(
    sizes=st.lists(st.integers(1, 7), min_size=1, max_size=12),
    max_batch=st.integers(1, 10),
)
def test_everybody_gets_their_own_in_order(sizes, max_batch):
    look = Looking()
    batcher = Batcher(look, max_batch=max_batch, capacity=sum(sizes))
    ends = np.cumsum(sizes)
    each = [
        np.arange(end - n, end, dtype=np.float32)
        for n, end in zip(sizes, ends, strict=True)
    ]
    futures = [batcher.submit(images) for images in each]
    look.go.set()
    for images, future in zip(each, futures, strict=True):
        assert future.result() == [{"twice": 2 * value} for value in images.tolist()]
    batcher.close()
    assert max(map(len, look.seen)) <= max_batch
    assert np.concatenate(look.seen).tolist() == list(range(sum(sizes)))  # each once
    assert batcher.n_waiting == 0


def test_those_who_wait_are_looked_at_together():
    look = Looking()
    batcher = Batcher(look, max_batch=4, capacity=10)
    batcher.submit(numbers(0))
    look.began.wait()
    futures = [batcher.submit(numbers(k)) for k in range(1, 6)]
    assert batcher.n_waiting == 5
    look.go.set()
    wait(futures)
    assert look.seen == [[0], [1, 2, 3, 4], [5]]
    batcher.close()


def test_no_room():
    look = Looking()
    batcher = Batcher(look, max_batch=1, capacity=3)
    first = batcher.submit(numbers(0))
    look.began.wait()  # no longer in the queue
    second = batcher.submit(numbers(1, 2))
    with pytest.raises(FullError):
        batcher.submit(numbers(3, 4))
    third = batcher.submit(numbers(5))
    look.go.set()
    assert [len(f.result()) for f in (first, second, third)] == [1, 2, 1]
    batcher.close()


def test_what_was_cancelled_is_not_looked_at():
    look = Looking()
    batcher = Batcher(look, max_batch=4, capacity=10)
    batcher.submit(numbers(0))
    look.began.wait()
    abandoned, wanted = batcher.submit(numbers(1, 2)), batcher.submit(numbers(3))
    assert abandoned.cancel()
    look.go.set()
    assert wanted.result() == [{"twice": 6}]
    assert look.seen == [[0], [3]]
    assert batcher.n_waiting == 0
    batcher.close()


def test_only_the_request_that_fails_fails():
    look = Looking()
    batcher = Batcher(look, max_batch=4, capacity=20)
    batcher.submit(numbers(0))
    look.began.wait()
    good, bad = batcher.submit(numbers(1)), batcher.submit(numbers(-2, 2, 2, 2, 2, 2))
    later = batcher.submit(numbers(3))
    look.go.set()
    assert good.result() == [{"twice": 2}]
    with pytest.raises(ValueError, match="cannot look at -2"):
        bad.result()
    assert later.result() == [{"twice": 6}]
    assert look.seen == [[0], [1, -2, 2, 2], [1], [-2, 2, 2], [3]]  # not its rest
    batcher.close()


def test_the_end_finishes_what_is_queued():
    look = Looking()
    batcher = Batcher(look, max_batch=1, capacity=10)
    futures = [batcher.submit(numbers(k)) for k in range(4)]
    closing = threading.Thread(target=batcher.close)
    closing.start()
    look.go.set()
    closing.join()
    assert [future.result() for future in futures] == [
        [{"twice": 2 * k}] for k in range(4)
    ]
    with pytest.raises(ClosedError):
        batcher.submit(numbers(9))
    assert not batcher.alive


def test_the_end_of_one_that_was_never_asked():
    batcher = Batcher(Looking(), max_batch=1, capacity=1)
    assert batcher.alive
    batcher.close()
    with pytest.raises(ClosedError):
        batcher.submit(numbers(0))
