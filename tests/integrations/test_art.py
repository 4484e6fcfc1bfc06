"""Against the Adversarial Robustness Toolbox itself."""

import numpy as np
import pytest
import torch
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression

from curvdetect import (
    CurvatureFeaturizer,
    CurvatureThresholdDetector,
    LearnedDetector,
    VotingDetector,
)
from curvdetect.attacks import from_art, make_adversarial_set
from curvdetect.study.datasets import load_fashion_mnist_sample
from curvdetect.study.networks import load_lenet

pytest.importorskip("art")

from art.attacks.evasion import (
    BasicIterativeMethod,
    FastGradientMethod,
    ProjectedGradientDescent,
)
from art.defences.detector.evasion import EvasionDetector
from art_hosts import ManyChannels, art_classifier, small_network
from quickly import learn_little

from curvdetect.integrations.art import (
    CurvatureEvasionDetector,
    model_from_art,
)
from modules import second_lenet


@pytest.fixture(scope="module")
def classifier():
    return art_classifier(load_lenet("fashion-mnist"))


@pytest.fixture(scope="module")
def data():
    return load_fashion_mnist_sample()


def few_lessons():
    return LearnedDetector(
        target_fpr=0.1, kinds=("minimal norm",), self_test=False, random_state=0
    )


@pytest.fixture
def swift(monkeypatch):
    """Fewer trees and attacks, and enough to tell what it was taught."""
    learn_little(monkeypatch, n_trees=40, n_attacked=200)


@pytest.fixture(scope="module")
def fitted(classifier, data):
    detector = CurvatureEvasionDetector(
        classifier,
        detector=LearnedDetector(target_fpr=0.1, self_test=False, random_state=0),
    )
    detector.fit(data[0][:100])
    return detector


def test_it_is_an_evasion_detector(fitted):
    assert isinstance(fitted, EvasionDetector)
    params = fitted.get_params()
    assert set(params) == set(fitted.defence_params)
    assert params["target_fpr"] is None
    for name in fitted.defence_params:
        assert hasattr(fitted, name)


def test_what_is_set_is_checked(classifier):
    detector = CurvatureEvasionDetector(classifier)
    detector.set_params(target_fpr=0.2)
    assert detector.target_fpr == 0.2
    with pytest.raises(ValueError, match="target_fpr must be a number between 0 and 1"):
        detector.set_params(target_fpr=2, random_state=3)
    with pytest.raises(ValueError, match=r"must be some of .* got .'target_frp'"):
        detector.set_params(target_frp=0.3)
    assert detector.get_params()["target_fpr"] == 0.2
    assert detector.random_state is None


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"classifier": "mine"}, ValueError, "classifier must be .* got str"),
        ({"classifier": small_network()}, ValueError, "classifier must be .* got Seq"),
        ({"featurizer": 3}, TypeError, "featurizer must be .* got int"),
        ({"detector": 5}, TypeError, "detector must be one of .* got 5"),
        ({"detector": LearnedDetector}, TypeError, "detector must be .* got <class"),
        ({"detector": "best"}, ValueError, "detector must be one of .* got 'best'"),
        ({"companion": "other"}, TypeError, "companion must be .* got str"),
        ({"random_state": "a"}, TypeError, "random_state must be .* got 'a'"),
        ({"target_fpr": 0}, ValueError, "target_fpr must be .* got 0"),
        ({"target_fpr": "x"}, ValueError, "target_fpr must be .* got 'x'"),
        (
            {"detector": LearnedDetector(), "target_fpr": 0.1},
            ValueError,
            "target_fpr must be left out where detector is given",
        ),
        (
            {"detector": "learned", "featurizer": CurvatureFeaturizer()},
            ValueError,
            "featurizer must be left out",
        ),
    ],
)
def test_what_is_no_such_thing_is_refused_at_once(classifier, settings, error, message):
    with pytest.raises(error, match=message):
        CurvatureEvasionDetector(**{"classifier": classifier, **settings})


@pytest.fixture
def by_threshold(classifier, data):
    """Fitted in a moment."""
    detector = CurvatureEvasionDetector(
        classifier, detector="threshold", target_fpr=0.2
    )
    detector.fit(data[0][:20])
    return detector


@pytest.mark.parametrize(
    ("name", "value"),
    [("target_fpr", 0.5), ("classifier", None), ("detector", "learned")],
)
def test_what_was_changed_since_fit_asks_for_a_new_one(by_threshold, data, name, value):
    x, before = data[0][40:45], getattr(by_threshold, name)
    expected = by_threshold.detect(x)[0]["scores"]
    by_threshold.set_params(**{name: value or art_classifier(load_lenet("mnist"))})
    with pytest.raises(ValueError, match=f"changed since fit: {name}. Call fit again"):
        by_threshold.detect(x)
    by_threshold.set_params(**{name: before})  # nothing is changed any more
    np.testing.assert_array_equal(by_threshold.detect(x)[0]["scores"], expected)


def test_another_rate_takes_effect_with_a_new_fit(by_threshold, data):
    before = by_threshold.pipeline[-1].threshold_
    by_threshold.set_params(target_fpr=0.5)
    by_threshold.fit(data[0][:20])
    assert by_threshold.pipeline[-1].threshold_ < before
    by_threshold.detect(data[0][40:45])


def test_a_network_that_was_trained_on_asks_for_a_new_fit(data):
    network = load_lenet("fashion-mnist")
    detector = CurvatureEvasionDetector(
        art_classifier(network), detector="threshold", target_fpr=0.2
    )
    detector.fit(data[0][:20])
    with torch.no_grad():
        next(network.parameters()).mul_(1.1)
    with pytest.raises(ValueError, match="changed since fit: weights"):
        detector.detect(data[0][40:45])


# What ART asks of its own detectors -----------------------------------------


def test_it_detects_an_attack_of_art(fitted, classifier, data):
    """What ART asserts of its own detectors, and the form of the report."""
    X, y = data[0][200:260], data[1][200:260]
    attack = ProjectedGradientDescent(
        classifier, eps=16 / 255, eps_step=2 / 255, max_iter=20, verbose=False
    )
    adversarial = attack.generate(X, y=y)
    report, flagged = fitted.detect(adversarial)
    assert set(report) == {"scores", "predictions"}
    assert flagged.dtype == bool
    assert flagged.shape == report["scores"].shape == (60,)
    assert report["predictions"].shape == (60, 2)  # as of a network for two classes
    np.testing.assert_array_equal(report["predictions"].argmax(axis=1), flagged)
    np.testing.assert_array_equal(report["predictions"][:, 1], report["scores"])
    _, clean = fitted.detect(X)
    assert flagged.sum() > 20
    assert (~clean).sum() > 45


def test_of_no_images_nothing_is_flagged(fitted, data):
    report, flagged = fitted.detect(data[0][:0])
    assert report["scores"].shape == flagged.shape == (0,)
    assert report["predictions"].shape == (0, 2)


PREPROCESSING = {
    "none": (0.0, 1.0),
    "one": (0.1, 0.9),
    "each": (np.full(3, 0.1, np.float32), np.full(3, 0.9, np.float32)),
}


@pytest.mark.parametrize(
    ("last", "preprocessing", "one_hot", "dtype"),
    [
        (False, "none", False, np.float32),
        (False, "each", True, np.float64),
        (True, "one", False, np.float16),
        (True, "each", True, np.float32),
    ],
)
def test_on_the_classifiers_of_art(swift, data, last, preprocessing, one_hot, dtype):
    """ART's recipe: as many images of FGSM as clean ones teach what FGSM is.

    On what it was not fitted on, attacked images are flagged far more often.
    """
    shape = (28, 28, 3) if last else (3, 28, 28)
    classifier = art_classifier(
        ManyChannels(load_lenet("fashion-mnist"), last).eval(),
        input_shape=shape,
        channels_first=not last,
        preprocessing=PREPROCESSING[preprocessing],
    )
    images = np.repeat(data[0][:200], 3, axis=1)
    images = np.moveaxis(images, 1, 3) if last else images
    attacked = FastGradientMethod(classifier, eps=0.1).generate(images)
    x = np.concatenate([images[:80], attacked[:80]]).astype(dtype)
    y = np.repeat([0, 1], 80)
    detector = CurvatureEvasionDetector(classifier, detector=few_lessons())
    detector.fit(x, np.eye(2)[y] if one_hot else y, nb_epochs=2, batch_size=64)
    _, of_clean = detector.detect(images[80:].astype(dtype))
    _, of_attacked = detector.detect(attacked[80:].astype(dtype))
    assert of_clean.shape == of_attacked.shape == (120,)
    assert np.mean(of_clean) < 0.2  # 0.1, with 40 images that set the threshold
    # Half of them do not fool the network, and forty trees are few.
    assert np.mean(of_attacked) > np.mean(of_clean) + 0.25


# Labels ---------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:mean AUROC")
def test_by_default_it_learns_from_the_clean_images(quick, classifier, data):
    default = CurvatureEvasionDetector(classifier, target_fpr=0.2)
    default.fit(data[0][:60])
    (learned,) = (step for _, step in default.pipeline.steps)
    assert isinstance(learned, LearnedDetector)
    assert learned.target_fpr_ == 0.2


def test_adversarial_images_teach_it(swift, classifier, data):
    """Of a kind that its own attacks never show: the network is surer of its label."""
    x = data[0][:120]
    towards = BasicIterativeMethod(
        classifier, eps=0.1, eps_step=0.02, max_iter=10, targeted=True, verbose=False
    )
    surer = towards.generate(x, y=classifier.predict(x).argmax(axis=1))
    both, y = np.concatenate([x[:80], surer[:80]]), np.repeat([0, 1], 80)
    detected = []
    for given in ((x[:80],), (both, y)):
        detector = CurvatureEvasionDetector(classifier, detector=few_lessons())
        detector.fit(*given)
        detected.append(detector.detect(surer[80:])[1].mean())
    assert detected[0] < 0.3
    assert detected[1] > 0.6


@pytest.mark.parametrize("kind", ["learned", "threshold"])
@pytest.mark.parametrize("y", [np.zeros(80), np.eye(2)[np.zeros(80, dtype=int)]])
def test_labels_of_clean_images_alone_say_nothing(quick, classifier, data, kind, y):
    x, scores = data[0][:80], []
    threshold = CurvatureThresholdDetector(target_fpr=0.2)
    for labels in (None, y):
        asked = few_lessons() if kind == "learned" else threshold
        detector = CurvatureEvasionDetector(classifier, detector=asked)
        detector.fit(x, labels)
        scores.append(detector.detect(x)[0]["scores"])
    np.testing.assert_array_equal(*scores)


@pytest.mark.parametrize("kind", ["learned", "threshold"])
@pytest.mark.parametrize("one_hot", [False, True])
def test_classes_are_not_what_labels_say(classifier, data, kind, one_hot):
    X, y = data[0][:40], data[1][:40]
    detector = CurvatureEvasionDetector(classifier, detector=kind, target_fpr=0.2)
    message = "y must be 0 for clean and 1 for adversarial .* leave y out"
    with pytest.raises(ValueError, match=message):
        detector.fit(X, np.eye(10)[y] if one_hot else y)
    assert detector.pipeline is None


def test_two_classes_are_no_labels_either(classifier, data):
    X, y = data[0], classifier.predict(data[0]).argmax(axis=1)
    x = X[y < 2][:20]
    detector = CurvatureEvasionDetector(
        classifier, detector=LogisticRegression(), featurizer=few_curvatures()
    )
    with pytest.warns(UserWarning, match="y is what the classifier predicts for 100%"):
        detector.fit(x, y[y < 2][:20])


def test_no_clean_images(classifier, data):
    with pytest.raises(ValueError, match="y must hold clean images"):
        CurvatureEvasionDetector(classifier).fit(data[0][:5], np.ones(5))


def test_who_does_not_learn_from_labels_says_so(by_threshold, data):
    x = data[0][:30]
    expected = by_threshold.detect(x)[0]["scores"]
    message = "fitted on clean images alone: the 10 adversarial ones are not used"
    with pytest.warns(UserWarning, match=message):
        by_threshold.fit(x, np.repeat([0, 1], [20, 10]))
    np.testing.assert_array_equal(by_threshold.detect(x)[0]["scores"], expected)


def test_who_learns_from_labels_needs_both(classifier, data):
    detector = CurvatureEvasionDetector(classifier, detector=LogisticRegression())
    with pytest.raises(ValueError, match="adversarial, 1, for LogisticRegression"):
        detector.fit(data[0][:20], np.zeros(20))


# Images ---------------------------------------------------------------------


def test_images_slightly_out_of_bounds_are_scored(by_threshold, data):
    x = data[0][40:45]
    beyond = x.copy()
    beyond[0, 0, :4, :4] = 1.03
    clipped = by_threshold.detect(beyond.clip(0, 1))[0]["scores"]
    with pytest.warns(UserWarning, match=r"1 of 5 images lie outside clip_values"):
        found = by_threshold.detect(beyond)[0]["scores"]
    np.testing.assert_array_equal(found, clipped)
    with pytest.raises(ValueError, match="X must lie within the model's bounds"):
        by_threshold.detect(255 * x)


# Detectors and companions ---------------------------------------------------


def test_votes_of_a_companion(classifier, data):
    voting = VotingDetector(
        companion=load_lenet("fashion-mnist"), sigma=0.05, n_votes=10, random_state=0
    )
    detector = CurvatureEvasionDetector(classifier, detector=voting)
    detector.fit(data[0][:40])
    report, flagged = detector.detect(data[0][40:50])
    np.testing.assert_array_equal(flagged, report["scores"] > 0)
    assert detector.pipeline[-1].certify(data[0][40:42], n_samples=50).share.max() > 0.5


@pytest.mark.parametrize("kind", ["art", "module", "of the detector"])
def test_a_companion_is_asked(quick, data, kind):
    """Each is given images as the classifier's own network is."""
    settings = {"preprocessing": (0.1, 0.9)}
    classifier = art_classifier(load_lenet("fashion-mnist"), **settings)
    other = second_lenet()
    detector = few_lessons()
    if kind == "of the detector":
        detector.companion = other
        guarded = CurvatureEvasionDetector(classifier, detector=detector)
    else:
        companion = art_classifier(other, **settings) if kind == "art" else other
        guarded = CurvatureEvasionDetector(
            classifier, detector=detector, companion=companion
        )
    guarded.fit(data[0][:70])
    held = guarded.pipeline[-1].companion_.model
    assert held.module is other
    expected = art_classifier(other, **settings).predict(data[0][:5])
    np.testing.assert_allclose(
        held.predict_logits(data[0][:5]), expected, rtol=1e-4, atol=1e-4
    )
    guarded.detect(data[0][70:75])


def test_a_companion_that_does_more_than_its_network_is_refused(classifier):
    from art.defences.postprocessor import ReverseSigmoid

    other = art_classifier(
        second_lenet(), postprocessing_defences=ReverseSigmoid(apply_predict=True)
    )
    with pytest.raises(ValueError, match="companion is refused: classifier must not"):
        CurvatureEvasionDetector(classifier, companion=other)


def few_curvatures():
    return CurvatureFeaturizer(
        None, features=("curvature", "distance"), layout="nearest", n_boundaries=3
    )


def test_which_detector_it_has(classifier, data):
    X = data[0][:40]
    threshold = CurvatureEvasionDetector(
        classifier, detector="threshold", target_fpr=0.2
    )
    threshold.fit(X)
    assert isinstance(threshold.pipeline[-1], CurvatureThresholdDetector)


def test_a_detector_that_learns_from_features_and_one_hot_labels(classifier, data):
    X, y = data[0][200:240], data[1][200:240]
    adversarial = FastGradientMethod(classifier, eps=0.1).generate(X, y=y)
    both, labels = np.concatenate([X, adversarial]), np.repeat([0, 1], 40)
    detector = CurvatureEvasionDetector(
        classifier,
        featurizer=few_curvatures(),
        detector=LogisticRegression(),
    )
    detector.fit(both, np.eye(2)[labels])
    _, flagged = detector.detect(both)
    assert np.mean(flagged == labels) > 0.6


def test_attacks_of_art_make_adversarial_sets(classifier, data):
    model = model_from_art(classifier)
    attack = FastGradientMethod(classifier, eps=0.1)
    found = make_adversarial_set(model, from_art(attack), data[0][:30], data[1][:30])
    assert 0 < len(found.adversarial) <= len(found.clean)
    assert np.abs(found.adversarial - found.clean[found.source]).max() <= 0.1 + 1e-6


def test_a_detector_without_scores_is_refused(classifier, data):
    detector = CurvatureEvasionDetector(classifier, detector=SimpleImputer())
    with pytest.raises(ValueError, match="SimpleImputer has no classes_"):
        detector.fit(data[0][:20])


def test_what_is_no_torch_classifier_is_refused(classifier):
    with pytest.raises(ValueError, match="must be a PyTorchClassifier of ART; got obj"):
        model_from_art(object())
    with pytest.raises(ValueError, match=r"call fit\(x\) first"):
        CurvatureEvasionDetector(classifier).detect(np.zeros((1, 1, 28, 28)))


def test_a_detector_whose_adversarial_label_is_the_smaller_one(classifier, images):
    """scikit-learn's positive class is the other one then; ART's flags are not."""
    X = images[0][:30]
    detector = CurvatureEvasionDetector(
        classifier, detector=CurvatureThresholdDetector(target_fpr=0.2, pos_label=0)
    )
    with pytest.warns(UserWarning, match="the 10 adversarial ones are not used"):
        detector.fit(X, np.repeat([0, 1], [20, 10]))
    report, flagged = detector.detect(X)
    of_curvature = detector.pipeline[-1].score_samples(
        detector.pipeline[:-1].transform(X)
    )
    above = of_curvature - detector.pipeline[-1].threshold_
    np.testing.assert_allclose(report["scores"], above, rtol=1e-12, atol=1e-300)
    np.testing.assert_array_equal(flagged, above > 0)
    assert flagged[:20].mean() <= 0.2
