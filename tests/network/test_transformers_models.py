"""Classifiers of transformers: as their processors and labels say, or refused."""

import pickle

import joblib
import numpy as np
import pytest
import torch
from PIL import Image

from curvdetect import CurvatureFeaturizer, GuardedClassifier, TorchModel
from curvdetect.attacks import GradientStepsAttack
from mixed_sizes import levels, pictures

transformers = pytest.importorskip("transformers")


def vit(size=32, **settings):
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        image_size=size,
        patch_size=8,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        **{"id2label": {0: "cat", 1: "dog", 2: "owl"}, **settings},
    )
    return transformers.ViTForImageClassification(config).eval()


def processors(name, **settings):
    """Return it with either of its backends."""
    found = [getattr(transformers, name)(**settings)]
    if hasattr(transformers, f"{name}Pil"):
        found.append(getattr(transformers, f"{name}Pil")(**settings))
    return found


SQUARE = {"height": 32, "width": 32}
PROCESSORS = [
    ("ViTImageProcessor", {"size": SQUARE}),
    ("ViTImageProcessor", {"size": SQUARE, "resample": 3, "image_mean": [0.1, 0.2, 0]}),
    ("ViTImageProcessor", {"size": SQUARE, "do_normalize": False}),
    ("ViTImageProcessor", {"size": SQUARE, "rescale_factor": 1 / 127.5}),
    (
        "DeiTImageProcessor",
        {"size": {"height": 41, "width": 41}, "crop_size": SQUARE, "resample": 2},
    ),
    (
        "CLIPImageProcessor",
        {"size": {"shortest_edge": 36}, "crop_size": SQUARE},
    ),
    ("BitImageProcessor", {"size": {"shortest_edge": 35}, "crop_size": SQUARE}),
    ("ConvNextImageProcessor", {"size": {"shortest_edge": 32}, "crop_pct": 0.9}),
    ("ConvNextImageProcessor", {"size": {"shortest_edge": 32}, "resample": 1}),
    ("ConvNextImageProcessor", {"size": {"shortest_edge": 384}}),
    ("EfficientNetImageProcessor", {"size": SQUARE, "resample": 0}),
    ("EfficientNetImageProcessor", {"size": SQUARE, "include_top": False}),
]


@pytest.mark.parametrize(("name", "settings"), PROCESSORS)
def test_pictures_are_prepared_as_the_processor_does(name, settings):
    for processor in processors(name, **settings):
        model = TorchModel.from_transformers(vit(), processor)
        for picture in pictures():
            made = processor(images=[picture], return_tensors="np")["pixel_values"][0]
            assert model.input_shape == made.shape
            found = np.asarray(model.preparation.apply(picture), dtype=float)
            away = np.abs(found - levels(made, model.mean, model.std))
            assert away.max() <= 2.01  # torch resizes bytes, and rounds them otherwise
            assert away.mean() <= 0.3


def test_labels_and_logits():
    module = vit()
    (processor, *_) = processors("ViTImageProcessor", size=SQUARE)
    model = TorchModel.from_transformers(module, processor, batch_size=3)
    assert model.class_names == ("cat", "dog", "owl")
    assert model.n_classes == 3
    assert model.batch_size == 3
    picture = Image.new("RGB", (50, 70), (200, 30, 90))
    inputs = processor(images=[picture], return_tensors="pt")
    with torch.no_grad():
        expected = module(**inputs).logits
    x = np.asarray(model.preparation.apply(picture)).transpose(2, 0, 1)[None] / 255
    found = model.predict_logits(x.astype(np.float32))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_it_can_be_pickled_and_hashed():
    (processor, *_) = processors("ViTImageProcessor", size=SQUARE)
    model = TorchModel.from_transformers(vit(), processor)
    again = pickle.loads(pickle.dumps(model))
    assert again.preparation == model.preparation
    assert joblib.hash(again) == joblib.hash(model)
    assert joblib.hash(TorchModel.from_transformers(vit(), processor)) == (
        joblib.hash(model)
    )
    other = TorchModel.from_transformers(vit(hidden_act="relu"), processor)
    assert joblib.hash(other) != joblib.hash(model)
    x = np.random.default_rng(0).random((2, 3, 32, 32)).astype(np.float32)
    np.testing.assert_array_equal(again.predict_logits(x), model.predict_logits(x))


def test_a_guard_of_it():
    """Its outputs are objects: through attacks, features and as a module."""
    (processor, *_) = processors("ViTImageProcessor", size=SQUARE)
    model = TorchModel.from_transformers(vit(), processor)
    x = np.random.default_rng(0).random((12, 3, 32, 32)).astype(np.float32)
    featurizer = CurvatureFeaturizer(model, n_boundaries=1, step=0.2, random_state=0)
    guard = GuardedClassifier(model, featurizer=featurizer, target_fpr=0.2).fit(x)
    found = guard.assess(x)
    labels = model.predict(x)
    assert found.model_label_name.tolist() == [model.class_names[k] for k in labels]
    attack = GradientStepsAttack(model, budget=0.05, steps=2)
    assert attack(torch.from_numpy(x), torch.from_numpy(labels)).shape == x.shape
    with torch.no_grad():
        plain = model.as_module()(torch.from_numpy(x))
    np.testing.assert_allclose(plain, model.predict_logits(x), atol=1e-5)


def test_labels_that_are_made_up_are_no_names():
    module = vit(id2label=None, num_labels=4)
    (processor, *_) = processors("ViTImageProcessor", size=SQUARE)
    assert TorchModel.from_transformers(module, processor).class_names is None


def test_labels_with_gaps_are_no_names():
    """By position, each would be another's."""
    (processor, *_) = processors("ViTImageProcessor", size=SQUARE)
    module = vit(id2label={1: "cat", 2: "dog"})
    assert TorchModel.from_transformers(module, processor).class_names is None


@pytest.mark.parametrize("problem", ["multi_label_classification", "regression"])
def test_what_has_several_answers_is_refused(problem):
    (processor, *_) = processors("ViTImageProcessor", size=SQUARE)
    with pytest.raises(ValueError, match=f"one class each.*problem_type='{problem}'"):
        TorchModel.from_transformers(vit(problem_type=problem), processor)


def test_weights_without_a_last_layer_are_refused(tmp_path):
    """transformers makes a random one in its place."""
    transformers.ViTModel(vit().config).save_pretrained(tmp_path)
    (processor, *_) = processors("ViTImageProcessor", size=SQUARE)
    with pytest.raises(ValueError, match=r"lacks classifier\.bias, classifier\.weight"):
        TorchModel.from_transformers(tmp_path, processor)
    random = TorchModel.from_transformers(tmp_path, processor, pretrained=False)
    assert random.n_classes == 3


def test_half_precision_is_read_as_single(tmp_path):
    module = vit().bfloat16()
    module.save_pretrained(tmp_path)
    (processor, *_) = processors("ViTImageProcessor", size=SQUARE)
    for pretrained in (True, False):
        found = TorchModel.from_transformers(
            tmp_path, processor, pretrained=pretrained
        ).module
        assert {each.dtype for each in found.parameters()} == {torch.float32}
    same = TorchModel.from_transformers(tmp_path, processor).module.classifier.weight
    assert torch.equal(same, module.classifier.weight.float())


def test_a_middle_that_is_rounded_as_torchvision_does():
    """As the quick processors of transformers 4."""
    functional = pytest.importorskip("torchvision.transforms.v2.functional")

    class Quick(transformers.BitImageProcessor):
        def center_crop(self, image, size, **_):
            return functional.center_crop(image, [size["height"], size["width"]])

    square = {"height": 224, "width": 224}
    processor = Quick(size={"shortest_edge": 256}, crop_size=square)
    model = TorchModel.from_transformers(vit(), processor)
    assert model.preparation.rounding == "even"


def test_a_folder(tmp_path):
    vit().save_pretrained(tmp_path)
    processors("ViTImageProcessor", size=SQUARE)[0].save_pretrained(tmp_path)
    model = TorchModel.from_transformers(tmp_path)
    same = TorchModel.from_transformers(tmp_path, str(tmp_path), pretrained=False)
    assert model.weights_digest() != same.weights_digest()
    assert model.preparation == same.preparation
    assert model.class_names == same.class_names == ("cat", "dog", "owl")
    again = TorchModel.from_transformers(model.module)  # which says where it was
    assert again.input_shape == (3, 32, 32)


def test_a_wrapped_network_of_timm():
    pytest.importorskip("timm")
    processor = transformers.TimmWrapperImageProcessor(
        pretrained_cfg={"input_size": (3, 32, 32), "crop_pct": 0.9}
    )
    model = TorchModel.from_transformers(vit(), processor)
    assert model.preparation.resize == 35


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("ViTImageProcessor", {"do_pad": True}, "has do_pad=True"),
        (
            "EfficientNetImageProcessor",
            {"size": SQUARE, "rescale_offset": True},
            "EfficientNetImageProcessor.* has rescale_offset=True",
        ),
        ("ViTImageProcessor", {"size": {"shortest_edge": 32}}, "inputs of one size"),
        (
            "ViTImageProcessor",
            {"size": {"shortest_edge": 32, "longest_edge": 40}},
            "to a shortest_edge; ViTImageProcessor.*longest_edge",
        ),
        ("LevitImageProcessor", {}, "and no more; what Levit.* levels of 255"),
        ("MobileViTImageProcessor", {}, "has do_flip_channel_order=True"),
    ],
)
def test_what_cannot_be_said_is_refused(name, settings, message):
    for processor in processors(name, **settings):
        with pytest.raises(ValueError, match=message):
            TorchModel.from_transformers(vit(), processor)


def test_what_is_no_classifier(tmp_path):
    with pytest.raises(ValueError, match="name must be a folder of save_pretrained"):
        TorchModel.from_transformers(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="processor must be given"):
        TorchModel.from_transformers(vit())
    vit().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="processor must be an image processor, or a"):
        TorchModel.from_transformers(tmp_path)
    with pytest.raises(ValueError, match="processor must be an image processor; got"):
        TorchModel.from_transformers(vit(), 3)
    of_colours = transformers.ViTImageProcessor(size=SQUARE)
    with pytest.raises(ValueError, match="must take pictures of 1 channels.*ViTImage"):
        TorchModel.from_transformers(vit(num_channels=1), of_colours)
    with pytest.raises(ValueError, match="classifier of transformers.*got a Linear"):
        TorchModel.from_transformers(torch.nn.Linear(2, 2), "x")
