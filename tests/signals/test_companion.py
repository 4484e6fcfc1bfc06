"""What a second classifier thinks: against the same by hand."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from curvdetect import CurvatureFeaturizer, TorchModel
from curvdetect.signals import Companion, matched_classes


@pytest.fixture
def model():
    torch.manual_seed(0)
    return TorchModel(nn.Linear(6, 4).eval(), input_shape=(6,))


@pytest.fixture
def other():
    torch.manual_seed(1)
    return TorchModel(nn.Linear(6, 4).eval(), input_shape=(6,), mean=0.5, std=0.2)


def test_columns_are_what_scipy_makes_of_both(model, other):
    from scipy.special import log_softmax
    from scipy.stats import entropy

    X = np.random.default_rng(0).random((5, 6), dtype=np.float32)
    featurizer = CurvatureFeaturizer(model, features=[Companion(other)]).fit(X)
    found = featurizer.transform(X)
    log_q = log_softmax(other.predict_logits(X), axis=1)
    label = model.predict(X)
    p = np.exp(log_softmax(model.predict_logits(X), axis=1))
    np.testing.assert_allclose(found[:, 3:], log_q, rtol=1e-4)
    np.testing.assert_allclose(found[:, 0], log_q[np.arange(5), label], rtol=1e-4)
    without = np.where(np.arange(4) == label[:, None], -np.inf, log_q)
    np.testing.assert_allclose(found[:, 1], without.max(axis=1), rtol=1e-4)
    expected = [entropy(*pair) for pair in zip(p, np.exp(log_q), strict=True)]
    np.testing.assert_allclose(found[:, 2], expected, rtol=1e-3, atol=1e-6)
    names = featurizer.get_feature_names_out()
    assert names[[0, 2, 3]].tolist() == [
        "companion_label",
        "companion_divergence",
        "companion_class0",
    ]


def test_another_order_of_classes_and_more_of_them(model):
    torch.manual_seed(2)
    many = TorchModel(nn.Linear(6, 7).eval(), input_shape=(6,))
    order = matched_classes("abcd", "dxcybaz")
    assert order == [5, 4, 2, 0]
    x = torch.rand(3, 6)
    found = Companion(many, classes=order).log_probabilities(x, (0, 1), 4)
    expected = torch.from_numpy(many.predict_logits(x))[:, order].log_softmax(1)
    torch.testing.assert_close(found.detach(), expected)
    with pytest.raises(ValueError, match="must have the network's 4 classes.*got 7"):
        Companion(many).log_probabilities(x, (0, 1), 4)


class Means(nn.Module):
    """Two classes by the means of the left and the right half."""

    def forward(self, x):
        half = x.shape[3] // 2
        return torch.stack(
            [x[..., :half].mean((1, 2, 3)), x[..., half:].mean((1, 2, 3))], dim=1
        )


@pytest.mark.parametrize("own", [(1, 8, 8), (3, 16, 16), (3, 4, 4)])
@pytest.mark.parametrize("channels", [1, 3])
def test_another_size_of_the_input(own, channels):
    """Halves keep their means, whatever the size; and there is a gradient."""
    companion = Companion(TorchModel(Means().eval(), input_shape=own))
    x = torch.full((2, channels, 8, 8), 0.25)
    x[0, ..., 4:] = 0.75
    x.requires_grad_()
    found = companion.log_probabilities(x, (0, 1), 2)
    if own[1] != 4:
        odds = (found[:, 1] - found[:, 0]).detach()
        assert odds == pytest.approx([0.5, 0.0], abs=0.06)
    (gradient,) = torch.autograd.grad(found[:, 1].sum(), x)
    assert (gradient[0].sum((0, 1)) != 0).any()


def test_colours_become_grey_as_they_are_seen():
    """By the luma of ITU-R BT.601, in which JPEG files are written too."""
    grey = Companion(TorchModel(Means().eval(), input_shape=(1, 4, 4)))
    colour = torch.rand(3, 3, 4, 4)
    weights = torch.tensor([0.299, 0.587, 0.114]).reshape(1, 3, 1, 1)
    found = grey.log_probabilities(colour, (0, 1), 2)
    expected = Means()((colour * weights).sum(1, keepdim=True)).log_softmax(1)
    torch.testing.assert_close(found, expected)


def test_how_it_is_written(model):
    assert "classes" not in repr(Companion(model))
    assert "classes=(1, 0, 2, 3)" in repr(Companion(model, classes=[1, 0, 2, 3]))


def test_black_and_white_are_the_companions_own():
    """It takes [-1, 1], the network [0, 1]."""
    seen = []

    class Looks(nn.Module):
        def forward(self, x):
            seen.append(x)
            return x

    own = TorchModel(Looks().eval(), input_shape=(2,), bounds=(-1.0, 1.0))
    Companion(own).log_probabilities(torch.tensor([[0.0, 1.0]]), (0.0, 1.0), 2)
    assert seen[-1].tolist() == [[-1.0, 1.0]]


def test_its_price_is_counted_in_passes_of_the_network(model):
    torch.manual_seed(0)
    three = nn.Sequential(nn.Linear(6, 9), nn.Linear(9, 4))  # 90 products, not 24
    companion = Companion(TorchModel(three.eval(), input_shape=(6,)))
    assert companion.passes_of(model, torch.rand(2, 6)) == pytest.approx(90 / 24)
    assert Companion(model, passes=2.5).cost(4) == 3.5


def test_what_it_refuses(model):
    with pytest.raises(TypeError, match="model must be a TorchModel.*got Linear"):
        Companion(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="classes must be different"):
        Companion(model, classes=[0, 0])
    with pytest.raises(ValueError, match="passes must be a positive"):
        Companion(model, passes=0)
    with pytest.raises(ValueError, match="once; not so for .'c'.$"):
        matched_classes("abc", "abx")
    small = Companion(TorchModel(Means().eval(), input_shape=(3, 4, 4)))
    with pytest.raises(ValueError, match="3 channels|channels, 1 or 3"):
        small.log_probabilities(torch.rand(1, 2, 8, 8), None, 2)
    with pytest.raises(ValueError, match="must take images of the network's shape"):
        small.log_probabilities(torch.rand(1, 5), None, 2)


def test_resizing_is_torch_s_own():
    own = TorchModel(nn.Flatten().eval(), input_shape=(1, 4, 4))
    x = torch.rand(2, 1, 8, 8)
    smaller = functional.interpolate(
        x, (4, 4), mode="bilinear", antialias=True, align_corners=False
    )
    found = Companion(own).log_probabilities(x, (0, 1), 16)
    torch.testing.assert_close(found, smaller.flatten(1).log_softmax(1))


class LastMeans(nn.Module):
    """The same as Means for pictures whose channels are last."""

    def forward(self, x):
        return Means()(x.permute(0, 3, 1, 2))


def test_another_layout_is_turned_not_scrambled():
    x = torch.rand(3, 3, 8, 8)
    first = Companion(TorchModel(Means().eval(), input_shape=(3, 8, 8)))
    expected = first.log_probabilities(x, (0, 1), 2)
    for size in (8, 16):
        last = Companion(TorchModel(LastMeans().eval(), input_shape=(size, size, 3)))
        found = last.log_probabilities(x, (0, 1), 2)
        torch.testing.assert_close(found, expected, atol=2e-2 * (size > 8), rtol=1e-4)
        turned = first.log_probabilities(x.permute(0, 2, 3, 1), (0, 1), 2)
        torch.testing.assert_close(turned, expected)


def test_vectors_of_the_same_values_are_in_their_order(model):
    x = torch.rand(2, 1, 3, 2)
    found = Companion(model).log_probabilities(x, None, 4)
    expected = Companion(model).log_probabilities(x.flatten(1), None, 4)
    assert torch.equal(found, expected)
    other = TorchModel(Means().eval(), input_shape=(1, 2, 3))  # as many: resized
    resized = Companion(other).log_probabilities(x, None, 2)
    straight = functional.interpolate(x, (2, 3), mode="bilinear", antialias=True)
    torch.testing.assert_close(resized, Means()(straight).log_softmax(1))


def test_what_is_not_finite_is_refused(model):
    class Overflows(nn.Module):
        def forward(self, x):
            return torch.log(x[:, :4] - 0.5)

    companion = Companion(TorchModel(Overflows().eval(), input_shape=(6,)))
    with pytest.raises(ValueError, match="companion must give finite logits"):
        companion.log_probabilities(torch.zeros(1, 6), (0, 1), 4)
