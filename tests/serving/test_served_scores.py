"""What a served guard answers, asked by a real client over the loopback."""

import io
import json
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from curvdetect import GuardedClassifier, TorchModel, VotingDetector, __version__
from curvdetect.estimators._p_values import p_values
from curvdetect.estimators.detector import conformal_p_values
from curvdetect.network import Preparation
from curvdetect.serving import Limits
from curvdetect.study.datasets import load_fashion_mnist_sample
from curvdetect.study.networks import load_lenet
from served import JSON, form, npy, served, small_guard

for needed in ("fastapi", "uvicorn", "python_multipart", "prometheus_client"):
    pytest.importorskip(needed)
Image = pytest.importorskip("PIL.Image")

LIMITS = Limits(max_bytes=200_000, max_pixels=5_000, max_batch=8, queue=20, timeout=600)


@pytest.fixture(scope="module")
def asked():
    """A guard, how to ask for it, and images as 8-bit pictures have them."""
    model = TorchModel(load_lenet("fashion-mnist"), input_shape=(1, 28, 28))
    guard = small_guard(model)
    X, _ = load_fashion_mnist_sample()
    with served(guard, limits=LIMITS) as (ask, _):
        yield guard, ask, np.round(255 * X[100:112]).astype(np.uint8)


def picture(values, kind="png"):
    file = io.BytesIO()
    Image.fromarray(values).save(file, kind)
    return file.getvalue()


def check_same(answer, guard, bytes_):
    """See that an answer is what the guard says, called directly."""
    X = bytes_.astype(np.float32) / 255
    found, p_values = guard.assess(X), guard.p_values(X)
    status, told = answer
    assert status == 200
    assert len(told["images"]) == len(X)
    for position, image in enumerate(told["images"]):
        for name in ("label", "model_label", "recovered_label", "flagged"):
            assert image[name] == getattr(found, name)[position]
        # In other batches torch may sum in another order.
        assert image["score"] == pytest.approx(found.score[position], abs=1e-5)
        assert image["p_value"] == p_values[position]


def test_pictures_that_come_at_once(asked):
    guard, ask, images = asked
    bodies = [picture(image[0]) for image in images]
    with ThreadPoolExecutor(len(bodies)) as pool:
        answers = list(pool.map(ask, bodies))
    for answer, image in zip(answers, images, strict=True):
        check_same(answer, guard, image[None])


@pytest.mark.parametrize("kind", ["image/png", "application/x-www-form-urlencoded"])
def test_what_a_picture_is_called_does_not_matter(asked, kind):
    guard, ask, images = asked
    body = picture(images[0, 0], "bmp")
    check_same(ask(body, {"Content-Type": kind}), guard, images[:1])


@pytest.mark.parametrize(
    "made",
    [
        lambda b: npy(b),
        lambda b: npy(b, version=(2, 0)),
        lambda b: npy(b.astype(np.float32) / 255),
        lambda b: npy(np.asfortranarray(b.astype(">f4") / np.float32(255))),
    ],
    ids=["bytes", "version 2", "float32", "big-endian, by columns"],
)
def test_arrays(asked, made):
    guard, ask, images = asked
    headers = {"Content-Type": "application/octet-stream"}
    check_same(ask(made(images), headers), guard, images)
    check_same(ask(made(images[0]), headers), guard, images[:1])


def test_nested_lists(asked):
    guard, ask, images = asked
    values = (images[:3].astype(np.float32) / 255).tolist()
    check_same(ask(json.dumps(values), JSON), guard, images[:3])
    check_same(ask(json.dumps({"images": values}), JSON), guard, images[:3])
    check_same(ask(json.dumps(values[1]), JSON), guard, images[1:2])


def test_a_form_of_all_kinds_keeps_its_order(asked):
    guard, ask, images = asked
    lists = json.dumps((images[9:11].astype(np.float32) / 255).tolist())
    body = form(
        ("a.png", "image/png", picture(images[8, 0])),
        ("b.json", "application/json", lists.encode()),
        ("c.npy", "application/octet-stream", npy(images[:7])),
        ("d.bmp", "image/bmp", picture(images[11, 0], "bmp")),
    )
    order = [8, 9, 10, *range(7), 11]
    check_same(ask(*body), guard, images[order])


def test_names_and_pictures_of_any_size(lenet, images):
    names = [f"name {k}" for k in range(10)]
    prepare = Preparation((28, 28), 28)
    model = TorchModel(
        lenet, input_shape=(1, 28, 28), class_names=names, preparation=prepare
    )
    guard = small_guard(model)
    large = Image.fromarray(np.uint8(255 * images[0][0, 0])).resize((90, 56))
    found = guard.assess(np.asarray(prepare.apply(large), np.float32)[None, None] / 255)
    with served(guard) as (ask, _):
        status, answer = ask(picture(np.asarray(large)))
    assert status == 200
    for label in ("label", "model_label", "recovered_label"):
        assert answer["images"][0][label] == getattr(found, label)[0]
        assert answer["images"][0][f"{label}_name"] == names[getattr(found, label)[0]]


def test_pictures_are_resized_if_asked(asked):
    guard, ask, images = asked
    large = picture(np.asarray(Image.fromarray(images[0, 0]).resize((56, 56))))
    status, refused = ask(large)
    assert (status, refused["detail"]) == (
        422,
        "the body: it has 56 x 56 pixels, not 28 x 28",
    )
    with served(guard, resize=True) as (ask_for_any, _):
        assert ask_for_any(large)[0] == 200


# What is refused -----------------------------------------------------------------


def declared(width, height):
    """A picture of a few bytes that says it has many pixels."""
    start = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", start), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + name + content
        + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )  # fmt: skip


def header_alone(shape, descr="<f4"):
    """A .npy file that says it has many values, and holds none."""
    file = io.BytesIO()
    known = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, known)
    return file.getvalue()


GOOD = np.zeros((1, 28, 28), np.float32)
REFUSED = {
    "nothing": (b"", {}, 422, "the body is empty"),
    "no picture": (b"nonsense", {}, 422, "neither a picture"),
    "cut picture": (picture(np.uint8(GOOD[0]))[:-30], {}, 422, "the body: "),
    "pixels": (declared(600, 600), {}, 422, "600 x 600 pixels, more than the 5000"),
    "many pixels": (declared(60_000, 60_000), {}, 422, "3600000000 pixels"),
    "cut array": (npy(GOOD)[:-1], {}, 400, "3135 bytes of values, not 3136"),
    "longer array": (npy(GOOD) + b"x", {}, 400, "3137 bytes of values, not 3136"),
    "broken header": (b"\x93NUMPY\x01\x00\x05\x00{'a':", {}, 400, "no .npy file"),
    "open string": (b"\x93NUMPY\x01\x00\x03\x00{'(", {}, 400, "no .npy file"),
    "other version": (b"\x93NUMPY\x07\x00", {}, 400, "no .npy file"),
    "endless array": (header_alone((10**12, 1, 28, 28)), {}, 413, "more images"),
    "negative array": (header_alone((-1, 1, 28, 28)), {}, 422, "must have shape"),
    "other shape": (npy(GOOD[:, 1:]), {}, 422, "(1, 28, 28) or (n, 1, 28, 28); it has"),
    "no image": (npy(np.zeros((0, 1, 28, 28))), {}, 422, "it has (0, 1, 28, 28)"),
    "objects": (header_alone((1, 28, 28), "|O"), {}, 422, "it has the type object"),
    "integers": (npy(GOOD.astype(int)), {}, 422, "it has the type int64"),
    "outside": (npy(GOOD + 2), {}, 422, "values must be in [0, 1]"),
    "missing": (npy(GOOD * np.nan), {}, 422, "values must be in [0, 1]"),
    "no JSON": (b"{", JSON, 400, "it is no JSON"),
    "depth": (b"[" * 100_000, JSON, 400, "it is no JSON"),
    "number": (b"3", JSON, 422, "must be nested lists of numbers"),
    "other key": (b'{"pixels": []}', JSON, 422, "\"images\"; it has 'pixels'"),
    "ragged": (b"[[1], [1, 2]]", JSON, 422, "of equal length"),
    "texts": (b'[["a"]]', JSON, 422, "could not convert string to float: 'a'"),
    "large number": (b"[1" + b"0" * 400 + b"]", JSON, 422, "must be nested lists"),
    "short list": (b"[0.5]", JSON, 422, "must have shape"),
    "no form": (b"abc", form()[1], 400, "Invalid multipart data"),
    "no edge": (b"abc", {"Content-Type": "multipart/form-data"}, 400, "boundary"),
    "text": (*form(("", "text/plain", b"a")), 422, "'images' must be a file"),
    "bad part": (
        *form(("a.npy", "a/b", npy(GOOD)), ("b.png", "image/png", b"nonsense")),
        422,
        "image 2 (b.png): it is neither a picture",
    ),
    "many images": (npy(np.zeros((21, 1, 28, 28), np.uint8)), {}, 413, "than the 20"),
    "many in parts": (
        *form(*[("a.npy", "a/b", npy(np.zeros((11, 1, 28, 28), np.uint8)))] * 2),
        413,
        "image 2 (a.npy): there are more images than the 9",
    ),
    "many bytes": (bytes(200_001), {}, 413, "more than the 200000 bytes"),
    "many in pieces": (
        (bytes(50_000) for _ in range(5)),
        {},
        413,
        "more than the 200000 bytes",
    ),
}


@pytest.mark.parametrize(
    ("body", "headers", "status", "said"), REFUSED.values(), ids=REFUSED
)
def test_refused(asked, body, headers, status, said):
    _, ask, _ = asked
    found, answer = ask(body, headers, method="POST")
    assert said in answer["detail"]
    assert found == status
    assert " at 0x" not in answer["detail"]


def test_broken_bodies_among_good_ones(asked, rng):
    guard, ask, images = asked
    good = [(picture(image[0]), {}, image[None]) for image in images]
    broken = [
        (body, headers, status)
        for body, headers, status, _ in REFUSED.values()
        if isinstance(body, bytes)
    ]
    jobs = [*good, *broken]
    order = rng.permutation(len(jobs))
    with ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda k: ask(*jobs[k][:2], method="POST"), order)
    for k, answer in zip(order, answers, strict=True):
        *_, expected = jobs[k]
        if isinstance(expected, int):
            assert answer[0] == expected
        else:
            check_same(answer, guard, expected)


def test_nothing_in_an_array_is_executed(asked, tmp_path):
    class Evil:
        def __reduce__(self):
            return (tmp_path.joinpath("executed").touch, ())

    _, ask, _ = asked
    body = npy(np.array([Evil()], dtype=object), allow_pickle=True)
    assert ask(body)[0] == 422
    assert not (tmp_path / "executed").exists()


def test_pictures_for_a_network_that_takes_none(rng):
    model = TorchModel(torch.nn.Linear(6, 3).eval(), input_shape=(6,), bounds=(0, 1))
    X = rng.uniform(size=(40, 6)).astype(np.float32)
    guard = GuardedClassifier(model, detector="threshold", target_fpr=0.1).fit(X)
    with served(guard) as (ask, _):
        status, answer = ask(picture(np.zeros((28, 28), np.uint8)))
        assert status == 422
        assert "the network takes no pictures but (6,)" in answer["detail"]
        assert ask(npy(X[:3]))[0] == 200


def test_another_method_and_another_place(asked):
    _, ask, _ = asked
    assert ask(method="GET")[0] == 405
    assert ask(b"", path="/score/other")[0] == 404


# Health, metrics, description ----------------------------------------------------


def test_health_says_what_is_served(asked):
    guard, ask, _ = asked
    status, said = ask(path="/health")
    assert status == 200
    assert said == {
        "alive": True,
        "ready": True,
        "guard": {
            "version": __version__,
            "detector": "CurvatureThresholdDetector",
            "target_fpr": 0.1,
            "network": guard.weights_,
            "input_shape": [1, 28, 28],
            "n_classes": 10,
        },
    }


def test_metrics_count_what_happened(asked):
    from prometheus_client.parser import text_string_to_metric_families

    guard, _, images = asked

    def values(ask):
        text = ask.whole(path="/metrics")[1].decode()
        return {
            (sample.name, *sample.labels.values()): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    X = images[:8].astype(np.float32) / 255
    found = guard.assess(X)
    with served(guard, limits=LIMITS) as (ask, _), served(guard) as (other, _):
        ask(npy(images[:8]))
        ask(b"nonsense")
        told = values(ask)
        assert values(other)["curvdetect_images_total",] == 0  # a registry each
    assert told["curvdetect_images_total",] == 8
    assert told["curvdetect_flagged_images_total",] == found.flagged.sum()
    assert told["curvdetect_requests_total", "200"] == 1
    assert told["curvdetect_requests_total", "422"] == 1
    assert told["curvdetect_request_seconds_count",] == 2
    assert told["curvdetect_p_value_count",] == 8
    assert told["curvdetect_p_value_sum",] == pytest.approx(guard.p_values(X).sum())
    assert told["curvdetect_queue_images",] == 0


def test_description_for_clients(asked):
    _, ask, _ = asked
    status, described = ask(path="/openapi.json")
    assert status == 200
    score = described["paths"]["/score"]["post"]
    assert "multipart/form-data" in score["requestBody"]["content"]
    assert {"200", "413", "422", "503", "504"} <= set(score["responses"])
    verdict = described["components"]["schemas"]["Verdict"]["properties"]
    assert {"label", "flagged", "score", "p_value", "label_name"} <= set(verdict)


# p-values ------------------------------------------------------------------------


@given(
    clean=st.lists(st.integers(-9, 9), min_size=1, max_size=20),
    scores=st.lists(st.integers(-9, 9), min_size=1, max_size=20),
    unit=st.floats(1e-3, 1e3),
    threshold=st.floats(-1e3, 1e3),
)
def test_p_values_from_scores_alone(clean, scores, unit, threshold):
    """Those of the detector, for scores that are often equal to clean ones."""
    clean, scores = unit * np.sort(clean), unit * np.array(scores)
    detector = SimpleNamespace(clean_scores_=clean, threshold_=threshold)
    guard = SimpleNamespace(detector_=detector)
    found = p_values(guard, SimpleNamespace(score=scores - threshold))
    assert (found == conformal_p_values(clean, scores)).all()


def test_p_values_of_votes(lenet, images):
    second = load_lenet("fashion-mnist")
    voting = VotingDetector(lenet, second, sigma=0.05, n_votes=20, random_state=0)
    voting.set_params(target_fpr=0.2)
    guard = GuardedClassifier(lenet, detector=voting).fit(*images)
    X = load_fashion_mnist_sample()[0][100:110]
    found = guard.assess(X)
    assert (p_values(guard, found) == guard.p_values(X)).all()
    guard.detector_.detector_ = "another, which would have to look again"
    assert p_values(guard, found) is None
