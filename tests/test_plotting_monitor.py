"""The picture of a stream: every image once, at its number."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from curvdetect import GuardMonitor
from curvdetect.plotting import MonitorDisplay


def states_of(*batches):
    rng = np.random.default_rng(0)
    monitor = GuardMonitor(random_state=0).fit(rng.normal(-2, 1, 300))
    return [monitor.update(rng.normal(mean, 1, n)) for mean, n in batches]


def test_updates_are_put_together():
    states = states_of((-2, 80), (-2, 20), (2, 40))
    ax = MonitorDisplay.from_states(states[1:]).ax_
    path, limit, alarm = ax.lines
    np.testing.assert_array_equal(path.get_xdata(), np.arange(81, 141))
    np.testing.assert_array_equal(
        path.get_ydata(), np.concatenate([s.path for s in states[1:]])
    )
    assert set(limit.get_ydata()) == {2}
    assert alarm.get_xdata() == [states[-1].alarm_at]
    assert f"after {states[-1].alarm_at} images: burst" in ax.get_title()


def test_no_alarm_at_another_level():
    states = states_of((-2, 50))
    ax = MonitorDisplay.from_states(states, level=1e-3, ax=plt.figure().gca()).ax_
    assert len(ax.lines) == 2
    assert ax.lines[1].get_ydata()[0] == pytest.approx(3)
    assert not ax.get_title()


def test_gaps_are_refused():
    first, _, last = states_of((-2, 50), (-2, 10), (-2, 5))
    with pytest.raises(ValueError, match="ends after 50 images, .* begins .* 60"):
        MonitorDisplay.from_states([first, last])
    with pytest.raises(ValueError, match="states must hold at least one"):
        MonitorDisplay.from_states([])
    with pytest.raises(ValueError, match="level must be strictly"):
        MonitorDisplay([0.0], level=2)
