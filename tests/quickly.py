"""Less of what takes long: for what does not depend on how much was done."""

from functools import partial

from curvdetect.attacks import effort
from curvdetect.estimators import _forest
from curvdetect.evasion import measure, searches


def learn_little(monkeypatch, *, n_trees=5, n_attacked=400):
    """Let detectors have fewer trees, and learn from fewer attacks."""
    grow = _forest.HistGradientBoostingClassifier
    monkeypatch.setattr(
        _forest,
        "HistGradientBoostingClassifier",
        lambda **settings: grow(**{**settings, "max_iter": n_trees}),
    )
    monkeypatch.setattr(effort, "SMALL", effort.SMALL._replace(n_attacked=n_attacked))


def search_little(monkeypatch):
    """Let those who evade a guard search and learn for a shorter time."""
    taught, joint = searches.StandIn, searches.JointAttack
    monkeypatch.setattr(
        searches, "StandIn", lambda *a, **k: taught(*a, **{**k, "steps": 60})
    )
    monkeypatch.setattr(
        searches, "JointAttack", lambda *a, **k: joint(*a, **{**k, "n_steps": 20})
    )
    monkeypatch.setattr(searches, "BUDGETS", (1.5, 4))
    monkeypatch.setattr(measure, "Search", partial(measure.Search, steps=4))
