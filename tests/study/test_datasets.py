import numpy as np
import pytest

from curvdetect._base import extras
from curvdetect.study import datasets


def write_idx(path, values):
    """Write bytes in the format of MNIST's files."""
    header = bytes([0, 0, 8, values.ndim])
    sizes = b"".join(int(n).to_bytes(4, "big") for n in values.shape)
    path.write_bytes(header + sizes + values.astype(np.uint8).tobytes())


@pytest.fixture
def mnist_dir(tmp_path, rng):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, n in (("train", 7), ("t10k", 5)):
        write_idx(
            raw / f"{part}-images-idx3-ubyte", rng.integers(256, size=(n, 28, 28))
        )
        write_idx(raw / f"{part}-labels-idx1-ubyte", np.arange(n))
    return tmp_path


def test_sample():
    X, y = datasets.load_fashion_mnist_sample()
    assert X.shape == (800, 1, 28, 28)
    assert X.dtype == np.float32
    assert (X.min(), X.max()) == (0, 1)
    assert np.bincount(y).min() > 50


def test_torchvision_layout(mnist_dir, rng):
    X, y = datasets.load_dataset("mnist", data_dir=mnist_dir, download=False)
    assert X.shape == (5, 1, 28, 28)
    assert y.tolist() == [0, 1, 2, 3, 4]
    assert X.max() <= 1
    X, _ = datasets.load_dataset("mnist", data_dir=mnist_dir, train=True)
    assert len(X) == 7


def test_a_part_of_a_data_set(tmp_path, rng):
    (tmp_path / "cifar10").mkdir()
    x = rng.integers(256, size=(4, 32, 32, 3)).astype(np.uint8)
    np.savez(tmp_path / "cifar10" / "cifar10_test_part.npz", x=x, y=np.arange(4))
    X, y = datasets.load_dataset("cifar10", data_dir=tmp_path)
    assert X.shape == (4, 3, 32, 32)
    assert y.tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(X[1, 2, 3, 4], x[1, 3, 4, 2] / 255, rtol=1e-6)


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_missing_files_say_where_they_should_be(tmp_path, name):
    with pytest.raises(FileNotFoundError, match="Put its files there as") as caught:
        datasets.load_dataset(name, data_dir=tmp_path, download=False)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_name():
    with pytest.raises(ValueError, match="name must be one of"):
        datasets.load_dataset("imagenet")


def test_environment_variable(monkeypatch, tmp_path):
    monkeypatch.setenv("CURVDETECT_DATA", str(tmp_path))
    assert datasets.default_data_dir() == tmp_path


def test_a_missing_extra_is_named():
    with pytest.raises(ImportError, match=r"pip install 'curvdetect\[plot\]'"):
        extras.require("a_module_that_does_not_exist", extra="plot")
