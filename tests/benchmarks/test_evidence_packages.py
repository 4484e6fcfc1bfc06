"""Detectors of packages: wired as documented, and each image by itself."""

from collections import OrderedDict
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

pytest.importorskip("art")
pytest.importorskip("pytorch_ood")

from art.defences.detector.evasion import SubsetScanningDetector
from art.estimators.classification import PyTorchClassifier
from pytorch_ood import detector as package
from sklearn.metrics import roc_auc_score

from benchmarks.common.splits import Split
from benchmarks.evidence.case import Case, Files, Network, Sizes, Training
from benchmarks.evidence.detectors import _layers, all_detectors, art_toolbox, ood
from benchmarks.evidence.detectors._layers import Activations, RestOfNetwork
from curvdetect import TorchModel
from curvdetect.attacks import AdversarialSet

SHAPE = (1, 8, 8)
N_CLASSES = 4
DETECTORS = (*ood.DETECTORS, *art_toolbox.DETECTORS)


class Product(nn.Module):
    """A matrix product with a constant, as onnx2torch has it."""

    def forward(self, rows, matrix):
        return rows @ matrix


class Residual(nn.Module):
    """A block with a way around it."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(6, 6, 3, padding=1)

    def forward(self, x):
        return x + self.conv(x).relu()


class InLayers(nn.Module):
    """A network whose last layer is a product and a sum."""

    def __init__(self):
        super().__init__()
        self.first, self.product = nn.Linear(64, 5), Product()
        self.matrix = nn.Parameter(torch.randn(5, N_CLASSES))
        self.bias = nn.Parameter(torch.randn(N_CLASSES))

    def forward(self, x):
        return self.product(self.first(x.flatten(1)).relu(), self.matrix) + self.bias


def network():
    torch.manual_seed(0)
    parts = OrderedDict(
        conv=nn.Conv2d(1, 6, 3, padding=1),
        relu=nn.ReLU(),
        pool=nn.MaxPool2d(2),
        flatten=nn.Flatten(),
        hidden=nn.Linear(96, 12),
        active=nn.ReLU(),
        last=nn.Linear(12, N_CLASSES),
    )
    return nn.Sequential(parts).eval()


def wrapped(module):
    return TorchModel(module.eval(), input_shape=SHAPE, mean=0.4, std=0.5)


def images(n, seed):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % N_CLASSES
    X = 0.3 * rng.random((n, *SHAPE))
    for i, label in enumerate(y):  # a bright corner for each class
        row, column = 4 * (label // 2), 4 * (label % 2)
        X[i, 0, row : row + 4, column : column + 4] += 0.6
    return Split(X.astype(np.float32), y)


@pytest.fixture(scope="module")
def case():
    torch.manual_seed(0)
    module = network().train()
    X, y = (torch.as_tensor(a) for a in images(200, 9))
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    for _ in range(60):  # every class is predicted, as some detectors want
        optimizer.zero_grad()
        nn.functional.cross_entropy(module((X - 0.4) / 0.5), y).backward()
        optimizer.step()
    splits = [images(n, seed) for n, seed in ((120, 0), (60, 1), (20, 2), (30, 3))]
    made = Network("small", "mnist", (16,), lambda _: None, lambda _: None)
    return Case("small", made, Files(), Sizes(), wrapped(module), *splits)


@pytest.fixture(scope="module")
def training(case):
    clean = case.fit
    rng = np.random.default_rng(4)
    attacked = clean.X + rng.choice([-0.2, 0.2], clean.X.shape)
    attacks = AdversarialSet(
        clean=clean.X,
        clean_label=clean.y,
        adversarial=attacked.clip(0, 1).astype(np.float32),
        original_label=clean.y,
        predicted_label=clean.y,
        source=np.arange(len(clean.X)),
    )
    return Training(case.reference, clean, {"noise": attacks}, {"noise": "few pixels"})


def same(found, expected, scores):
    """Compare scores, as precisely as 32 bits give them among others."""
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * scores.std())


@pytest.mark.parametrize("detector", DETECTORS, ids=lambda d: d.name)
def test_score_of_an_image_depends_on_no_other(detector, case, training):
    assert detector.applies(case)
    scorer = detector.make(case).fit(training)
    X = case.test.X
    scores = scorer.score(X)
    assert scores.shape == (len(X),)
    assert np.isfinite(scores).all()
    assert len(np.unique(scores)) > 1
    of_one = np.concatenate([scorer.score(x[None]) for x in X[:8]])
    same(of_one, scores[:8], scores)
    same(scorer.score(X[::-1].copy()), scores[::-1], scores)


def test_detectors_leave_the_network_as_it_was(case, training):
    weights = {k: v.clone() for k, v in case.model.module.state_dict().items()}
    case.model.module.train()
    try:
        for detector in DETECTORS:
            detector.make(case).fit(training).score(case.test.X[:3])
            assert case.model.module.training, detector.name
    finally:
        case.model.module.eval()
    for name, weight in case.model.module.state_dict().items():
        torch.testing.assert_close(weight, weights[name], rtol=0, atol=0)
    assert not any(m._forward_hooks for m in case.model.module.modules())
    assert torch.get_default_dtype() == torch.float32


# pytorch-ood: what its documentation says, for a network that is a plain chain --------


def documented(module):
    """Return detectors as the package's documentation makes them, by name."""
    encoder, head, logits = module[:-1], module[-1], module
    pixels = nn.Sequential(module[:-1], nn.Unflatten(1, (12, 1, 1)))
    of_pixels = nn.Sequential(nn.Flatten(), head)
    w, b = head.weight, head.bias
    of_last = {"param_filter": lambda name: name == f"{len(module) - 1}.weight"}
    plain = {
        name: getattr(package, name)(logits)
        for name in (
            *("MaxSoftmax", "MaxLogit", "EnergyBased", "Entropy", "GEN", "KLMatching"),
            *("TemperatureScaling",),
        )
    }
    with_head = {
        name: getattr(package, name)(encoder, head)
        for name in ("NNGuide", "SHE", "fDBD", "NCI", "PNML", "LTS")
    }
    with_pixels = {
        name: getattr(package, name)(pixels, of_pixels)
        for name in ("ASH", "SCALE", "ReAct", "VRA")
    }
    maps = package.RankFeat(module[:4], module[4:])  # the first is the normalisation
    return {
        **plain,
        **with_head,
        **with_pixels,
        "RankFeat": maps,
        "GradNorm": package.GradNorm(logits, **of_last),
        "GradUncertainty": package.GradUncertainty(logits, **of_last),
        "Mahalanobis": package.Mahalanobis(encoder),
        "RMD": package.RMD(encoder),
        "GMM": package.GMM(encoder),
        "KNN": package.KNN(encoder),
        "ViM": package.ViM(encoder, 6, w, b),
        "DICE": package.DICE(encoder, w, b, p=0.9),
    }


class Normalise(nn.Module):
    def forward(self, x):
        return (x - 0.4) / 0.5


def chain(case):
    return nn.Sequential(Normalise(), *case.model.module)


NAMES = list(documented(nn.Sequential(Normalise(), *network())))


@pytest.mark.parametrize("name", NAMES)
def test_pytorch_ood_as_documented(name, case, training):
    expected = documented(chain(case))[name]
    data = TensorDataset(*map(torch.as_tensor, training.reference))
    expected.fit(DataLoader(data, batch_size=50))
    X = case.test.X
    own = next(d for d in ood.DETECTORS if d.name == f"pytorch-ood {name}")
    scores = own.make(case).fit(training).score(X)
    same(expected.predict(torch.as_tensor(X)).detach().numpy(), scores, scores)


def test_mahalanobis_of_layers_is_the_sum_of_quadratic_forms(case, training):
    own = next(d for d in ood.DETECTORS if d.name == "pytorch-ood MultiMahalanobis")
    module, X, y = chain(case), training.reference.X, training.reference.y

    def layers(X):  # with a convolution's mean over places
        found = []
        with torch.no_grad():
            z = module[0](torch.as_tensor(X))
            for layer in module[1:-1]:
                z = layer(z)
                if not isinstance(layer, nn.Flatten):
                    found.append((z.flatten(2).mean(2) if z.ndim > 2 else z).double())
        return [z.numpy() for z in found]

    expected = np.zeros(len(case.test.X))
    for z, new in zip(layers(X), layers(case.test.X), strict=True):
        means = np.stack([z[y == k].mean(0) for k in range(N_CLASSES)])
        scatter = (z - means[y]).T @ (z - means[y]) + 1e-6 * np.eye(z.shape[1])
        from_means = new[:, None] - means
        form = np.einsum(
            "nki,ij,nkj->nk", from_means, np.linalg.inv(scatter), from_means
        )
        expected += form.min(1) / 2
    scores = own.make(case).fit(training).score(case.test.X)
    np.testing.assert_allclose(scores, expected, rtol=1e-3)


def test_gram_gives_what_a_chain_gives(case, training):
    own = next(d for d in ood.DETECTORS if d.name == "pytorch-ood Gram")
    module = chain(case)
    expected = package.Gram(
        module[-1],
        [module[:2], module[2], module[3], module[4:6], module[6]],
        N_CLASSES,
        list(ood.POWERS),
    )
    data = TensorDataset(*map(torch.as_tensor, training.reference))
    torch.manual_seed(0)
    expected.fit(DataLoader(data, batch_size=50))
    scores = own.make(case).fit(training).score(case.test.X)
    expected = expected.predict(torch.as_tensor(case.test.X))
    np.testing.assert_allclose(scores, expected.numpy(), rtol=1e-3)


def test_openmax_as_shipped_depends_on_the_other_images(case, training):
    logits = torch.as_tensor(case.model.predict_logits(training.reference.X))
    y = torch.as_tensor(training.reference.y)
    rows = logits[:8]
    assert len(rows.argmax(1).unique()) == N_CLASSES
    shipped = package.OpenMax(None).fit_logits(logits, y)
    own = ood.OpenMaxOfEveryClass(None).fit_logits(logits, y)
    whole = shipped.predict_logits(rows)
    alone = torch.cat([shipped.predict_logits(row[None]) for row in rows])
    assert (whole - alone).abs().max() > 0.01  # if it is mended, ours may go
    torch.testing.assert_close(own.predict_logits(rows), whole)
    mine = torch.cat([own.predict_logits(row[None]) for row in rows])
    torch.testing.assert_close(mine, whole)


def test_a_score_that_is_no_number_is_the_largest(case, training):
    class Broken(package.MaxLogit):
        def predict_logits(self, logits):
            return torch.where(logits[:, 0] > logits[:, 0].median(), torch.nan, 1.0)

    made = ood.OfPytorchOOD(case.model, ood.LOGITS, lambda m, n: Broken(None))
    scores = made.fit(training).score(case.test.X)
    assert set(scores) == {1.0, np.finfo(np.float32).max}


def test_fewer_reference_images_than_neighbours(case, training):
    few = Split(training.reference.X[:20], training.reference.y[:20])
    knn = next(d for d in ood.DETECTORS if d.name == "pytorch-ood KNN")
    small = Training(few, training.clean, training.attacked, training.kinds)
    scorer = knn.make(case).fit(small)
    with torch.no_grad():
        known, new = (
            nn.functional.normalize(chain(case)[:-1](torch.as_tensor(X)))
            for X in (few.X, case.test.X)
        )
    farthest = torch.cdist(new, known).max(1).values
    np.testing.assert_allclose(scorer.score(case.test.X), farthest, rtol=1e-3)


# Layers -----------------------------------------------------------------------------


def test_features_and_head_of_a_product_and_a_sum():
    model = wrapped(InLayers())
    found = _layers.parts(model)
    x = torch.rand(5, *SHAPE)
    with torch.no_grad():
        expected = model.module.first(((x - 0.4) / 0.5).flatten(1)).relu()
        torch.testing.assert_close(found.features(x), expected)
        torch.testing.assert_close(found.head(expected), model.as_module()(x))
    torch.testing.assert_close(found.head.weight, model.module.matrix.detach().T)


def test_no_head_where_the_last_layer_is_not_affine(case):
    bent = wrapped(nn.Sequential(network(), nn.Sigmoid()))
    assert _layers.parts(bent) is None
    other = replace(case, model=bent)
    names = {d.name for d in DETECTORS if not d.applies(other)}
    assert {"pytorch-ood KNN", "ART subset scanning"} <= names
    assert not names & {"pytorch-ood MaxSoftmax", "pytorch-ood Gram"}


def test_rank_feat_needs_a_map_of_several_places(case):
    rank_feat = next(d for d in ood.DETECTORS if d.name == "pytorch-ood RankFeat")
    flat = nn.Sequential(nn.Flatten(), nn.Linear(64, 9), nn.ReLU(), nn.Linear(9, 4))
    assert not rank_feat.applies(replace(case, model=wrapped(flat)))
    assert rank_feat.applies(case)


def test_stages_are_layers_without_what_rearranges():
    module = network()
    expected = [module.conv, module.relu, module.pool, module.hidden, module.active]
    assert _layers.stages(wrapped(module)) == expected


def test_stages_are_blocks_where_there_are_three():
    blocks = [Residual() for _ in range(8)]
    module = nn.Sequential(
        nn.Conv2d(1, 6, 3),
        *blocks,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 4),
    )
    found = _layers.stages(wrapped(module), most=4)
    assert found == [blocks[1], blocks[3], blocks[5], blocks[7]]


def test_a_network_cut_in_the_middle_goes_on():
    module = nn.Sequential(
        nn.Conv2d(1, 6, 3), Residual(), Residual(), nn.Flatten(), nn.Linear(216, 4)
    )
    model = wrapped(module)
    inner = module[1].conv  # there is a way around it
    cut = RestOfNetwork(model.as_module(), inner)
    x = torch.rand(3, *SHAPE)
    with torch.no_grad():
        images = cut.before(x)
        torch.testing.assert_close(cut.after(images), model.as_module()(x))
        given = module[0]((x - 0.4) / 0.5)
        torch.testing.assert_close(
            cut.after(torch.zeros_like(images)), module[2:](given)
        )


def test_tokens_are_maps_with_channels_first():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.patches, self.last = nn.Conv2d(1, 6, 4, stride=4), nn.Linear(6, 4)
            self.mix = nn.Linear(6, 6)

        def forward(self, x):
            z = self.mix(self.patches(x).flatten(2).transpose(1, 2))
            return self.last(z.mean(1))

    model = wrapped(Tokens())
    assert _layers.last_map(model) is model.module.mix
    cut = RestOfNetwork(model.as_module(), model.module.mix)
    x = torch.rand(3, *SHAPE)
    with torch.no_grad():
        images = cut.before(x)
        assert images.shape == (3, 6, 4, 1)
        (tokens,) = Activations(model.as_module(), [model.module.mix])(x)
        torch.testing.assert_close(images[..., 0].mT, tokens)
        torch.testing.assert_close(cut.after(images), model.as_module()(x))


def test_names_that_begin_with_an_underscore_are_no_detectors():
    names = [detector.name for detector in all_detectors()]
    assert len(names) == len(set(names))
    assert {"pytorch-ood KNN", "ART binary, images"} <= set(names)


# ART --------------------------------------------------------------------------------


@pytest.mark.parametrize(("activations", "least"), [(False, 0.95), (True, 0.65)])
def test_art_binary_learns_from_attacks(activations, least, case, training):
    def scores():
        made = art_toolbox.ARTBinary(case.model, activations=activations)
        return made.fit(training).score(X)

    noise = np.random.default_rng(5).choice([-0.2, 0.2], case.test.X.shape)
    noisy = (case.test.X + noise).clip(0, 1).astype(np.float32)
    X = np.concatenate([case.test.X, noisy])
    state = torch.get_rng_state()
    found = scores()
    assert torch.equal(torch.get_rng_state(), state)
    assert roc_auc_score(np.repeat([0, 1], len(noisy)), found) > least
    np.testing.assert_allclose(scores(), found, rtol=1e-4, atol=1e-4)


def test_subset_scanning_is_the_best_of_all_thresholds(case, training):
    scorer = art_toolbox.ARTSubsetScanning(case.model).fit(training)
    with torch.no_grad():
        known, new = (
            chain(case)[:-1](torch.as_tensor(X)).numpy()
            for X in (training.reference.X, case.test.X)
        )
    n = len(known)
    p = ((known[None] >= new[:, None]).sum(1) + 1) / (n + 1)
    expected = [
        max((row <= a).sum() * np.log(1 / a) for a in row[row <= 0.5]) for row in p
    ]
    np.testing.assert_allclose(scorer.score(case.test.X), expected)


def test_subset_scanning_of_an_image_with_nothing_unusual(case, training):
    """ART takes the largest of none."""
    low = case.test.X[:2].copy()
    least = _layers.parts(case.model)
    with torch.no_grad():
        known = least.features(torch.as_tensor(training.reference.X))
    scorer = art_toolbox.ARTSubsetScanning(case.model).fit(training)
    features = torch.stack([known.median(0).values - 1, known.max(0).values + 1])
    layers = scorer.detector.classifier.model
    layers[0].forward = lambda x: features[x[:, 0, 0, 0].long()]
    low[:, 0, 0, 0] = [0, 1]
    with pytest.raises(ValueError, match="empty"):
        scorer.detector.detect(low)
    nothing, much = scorer.score(low)
    assert nothing == 0
    assert much == pytest.approx(12 * np.log(len(known) + 1))


def test_subset_scanning_leaves_out_reference_images_that_art_fails_on():
    rng = np.random.default_rng(0)
    X = rng.random((100, 1, 1, 3)).astype(np.float32)
    module = nn.Sequential(nn.Flatten(), nn.Linear(3, 2))
    model = TorchModel(module.eval(), input_shape=(1, 1, 3))
    whole = PyTorchClassifier(
        module, loss=None, input_shape=(1, 1, 3), nb_classes=2, device_type="cpu"
    )
    with pytest.raises(ValueError, match="empty"):
        SubsetScanningDetector(whole, X, layer=0, verbose=False)
    usable = art_toolbox.ARTSubsetScanning(model)._usable(X)
    assert 0.7 * len(X) < len(usable) < len(X)
    SubsetScanningDetector(whole, usable, layer=0, verbose=False)


def test_neighbours_depend_on_no_other_image_and_begin_anew():
    x = torch.rand(5, 3, 8, 8)
    make = art_toolbox.Neighbours((3, 8, 8), 4)
    first = [make(x) for _ in range(4)]
    again = [make(x[2:3]) for _ in range(4)]
    for a, b in zip(first, again, strict=True):
        torch.testing.assert_close(a[2:3], b)
        assert a.min() >= 0
        assert a.max() <= 1
    assert (first[0] - first[1]).abs().max() > 0.1


def test_grey_neighbours_are_not_mirrored():
    left = torch.zeros(1, 1, 8, 8)
    left[..., :4] = 1
    make = art_toolbox.Neighbours(SHAPE, 20)
    for _ in range(20):
        moved = make(left)
        assert moved[..., :4].mean() > moved[..., 4:].mean()
    make = art_toolbox.Neighbours((3, 8, 8), 20)
    mirrored = [
        (m := make(left.expand(1, 3, 8, 8)))[..., :4].mean() < m[..., 4:].mean()
        for _ in range(20)
    ]
    assert 3 < sum(mirrored) < 17


def similar_by_hand(model, second, X, n):
    """Return neighbours' labels and cosines of one image after another."""
    neighbour = art_toolbox.Neighbours(SHAPE, n)
    found = _layers.parts(second)
    labels, cosines, of_logits = [], [], []
    with torch.no_grad():
        for x in torch.as_tensor(X):
            own = found.features(x[None])[0].numpy()
            near = [found.features(neighbour(x[None]))[0] for _ in range(n)]
            logits = np.stack([found.head(z).numpy() for z in near])
            near = np.stack([z.numpy() for z in near])
            labels.append(logits.argmax(1))
            norms = np.linalg.norm(near, axis=1) * np.linalg.norm(own)
            cosines.append(near @ own / norms)
            label = second.predict(x[None].numpy())[0]
            of_logits.append(logits[:, label] / np.linalg.norm(logits, axis=1))
    return np.array(labels), np.array(cosines), np.array(of_logits)


@pytest.fixture(scope="module")
def second():
    torch.manual_seed(1)
    return wrapped(network())


def test_beyond_compares_labels_of_both_networks(case, training, second):
    scorer = art_toolbox.Beyond(case.model, second).fit(training)
    X, n = case.test.X[:6], art_toolbox.N_NEIGHBOURS
    labels, cosines, _ = similar_by_hand(case.model, second, X, n)
    own = case.model.predict(X)
    agree = (labels == own[:, None]).mean(1)
    expected = np.stack([agree, cosines.mean(1)], axis=1)
    np.testing.assert_allclose(scorer.similarities(X), expected, rtol=1e-4)
    clean = scorer.similarities(training.clean.X)
    std = np.maximum(clean.std(0), [1 / n, 1e-6])
    np.testing.assert_allclose(
        scorer.score(X), ((clean.mean(0) - expected) / std).max(1), rtol=1e-2, atol=1e-2
    )


def test_beyond_as_shipped_never_asks_the_guarded_network(case, training, second):
    calls = []
    handle = case.model.module.register_forward_hook(lambda *_: calls.append(1))
    try:
        scorer = art_toolbox.ARTBeyond(case.model, second).fit(training)
        X, n = case.test.X[:6], art_toolbox.N_NEIGHBOURS
        scores = scorer.score(X)
    finally:
        handle.remove()
    assert not calls
    _, cosines, of_logits = similar_by_hand(case.model, second, X, n)
    both = np.sort(0.8 * of_logits + 0.2 * cosines, axis=1)[:, ::-1]
    np.testing.assert_allclose(scores, -both[:, round(0.4 * n) - 1], rtol=1e-4)


def test_reference_images_are_passed_once_for_all_that_learn_from_them(case, training):
    calls = []
    again = replace(case, model=wrapped(network()))
    knn, gmm = (
        next(d for d in ood.DETECTORS if d.name == f"pytorch-ood {name}")
        for name in ("KNN", "GMM")
    )
    again.model.n_classes, _layers.parts(again.model)  # they ask, too
    handle = again.model.module.register_forward_hook(lambda *_: calls.append(1))
    knn.make(again).fit(training)
    assert len(calls) == 1
    gmm.make(again).fit(training)
    assert len(calls) == 1
    others = Split(training.reference.X.copy(), training.reference.y)
    gmm.make(again).fit(replace(training, reference=others))
    assert len(calls) == 2
    handle.remove()


def test_art_binary_whose_last_batch_is_a_single_image(case, training):
    n = 129 - len(training.clean.X)  # batches are of 128
    attacks = training.attacked["noise"]
    rows = np.arange(n) % len(attacks.adversarial)
    of_rows = ("adversarial", "original_label", "predicted_label", "source")
    more = replace(attacks, **{name: getattr(attacks, name)[rows] for name in of_rows})
    odd = replace(training, attacked={"noise": more})
    assert len(odd.labelled()[0]) % art_toolbox.BATCH_SIZE == 1
    for activations in (False, True):
        scorer = art_toolbox.ARTBinary(case.model, activations=activations)
        assert np.isfinite(scorer.fit(odd).score(case.test.X)).all()
