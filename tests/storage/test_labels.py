"""True labels of images, from tables, arrays and folders."""

import numpy as np
import pytest

from curvdetect.storage.labels import read_labels

NAMES = ["a/1.png", "b/2.png", "a/3.png"]
CLASSES = ["a", "b", "c"]


def read(file=None, *, images="pictures", names=NAMES, n_all=3, classes=CLASSES):
    return read_labels(
        file,
        images=images,
        names=names,
        n_all=n_all,
        n_classes=3,
        class_names=classes,
    )


def table(folder, text):
    path = folder / "labels.csv"
    path.write_text(text)
    return path


def test_folders_are_classes():
    labels, source = read()
    assert labels.tolist() == [0, 1, 0]
    assert source == "the folders that the pictures lie in"
    labels, _ = read(names=["x/2/1.png", "0/1.png"], classes=None)
    assert labels.tolist() == [2, 0]


@pytest.mark.parametrize(
    ("names", "classes", "why"),
    [
        (["1.png"], CLASSES, "pictures lie in none"),
        (["a/1.png", "2.png"], CLASSES, "pictures lie in none"),
        (["a/1.png", "d/2.png"], CLASSES, "'d' is not a class of the network, 0 to 2"),
        (["a/1.png"], None, "'a' is not a class"),
        (["3/1.png"], None, "'3' is not a class"),
    ],
)
def test_folders_that_are_none(names, classes, why):
    labels, source = read(names=names, classes=classes)
    assert labels is None
    assert why in source


def test_a_table_names_images_in_any_order(tmp_path):
    text = "more,label,image\n,c,b/2.png\n,0,a/1.png\n,b,a/3.png\n,a,another\n"
    labels, source = read(table(tmp_path, text))
    assert labels.tolist() == [0, 2, 1]
    assert source == "labels.csv"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("image,class\na/1.png,0\n", r'columns "image" and "label"'),
        ("image,label\na/1.png,0\n", "no line for the image 'b/2.png'"),
        ("image,label\na/1.png,d\n", "each be a class of the network.* has 'd'"),
        ("image,label\na/1.png,3\n", "0 to 2, or one of its names; .* has '3'"),
        ("image,label\na/1.png,-1\n", "has '-1'"),
        ("image,label\na/1.png\n", "has '' for"),
        ("", "columns"),
    ],
)
def test_tables_that_do_not_do(tmp_path, text, why):
    with pytest.raises(ValueError, match=why):
        read(table(tmp_path, text))


def test_arrays_skip_images_that_were_refused(tmp_path):
    np.save(tmp_path / "y.npy", [2, 1, 0, 2])
    np.savez(tmp_path / "y.npz", labels=[2, 1, 0, 2])
    for file in ("y.npy", "y.npz"):
        labels, source = read(
            tmp_path / file, images="X.npy", names=["0", "3"], n_all=4
        )
        assert labels.tolist() == [2, 2]
        assert source == file


def test_the_file_of_the_images_may_hold_them(tmp_path):
    images = tmp_path / "new.npz"
    np.savez(images, X=np.zeros((3, 2)), y=[0, 1, 2])
    labels, source = read(images=images, names=["0", "1", "2"])
    assert (labels.tolist(), source) == ([0, 1, 2], "those in new.npz")
    np.savez(images, X=np.zeros((3, 2)))
    labels, source = read(images=images, names=["0", "1", "2"])
    assert labels is None
    assert "the file of the images holds none" in source


@pytest.mark.parametrize(
    ("y", "why"),
    [
        ([0, 1], r"for each of the 3 images; .* of shape \(2,\)"),
        ([0, 1, 3], "each be a class of the network, 0 to 2"),
        ([0, 1, -1], "has others"),
        ([0.0, 1.0, 2.0], "has others"),
    ],
)
def test_arrays_that_do_not_do(tmp_path, y, why):
    np.save(tmp_path / "y.npy", y)
    with pytest.raises(ValueError, match=why):
        read(tmp_path / "y.npy", images="X.npy", names=["0", "1", "2"])


def test_other_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="labels: there is no"):
        read(tmp_path / "nothing.csv")
    np.save(tmp_path / "y.npy", [0, 1, 0])
    with pytest.raises(ValueError, match=r"labels must be a \.csv file"):
        read(tmp_path / "y.npy")  # of pictures: in which order?
    (tmp_path / "y.npz").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="labels: .* cannot be read"):
        read(tmp_path / "y.npz", images="X.npy")
    np.savez(tmp_path / "y.npz", other=[0])
    with pytest.raises(ValueError, match='an array "y" or "labels"'):
        read(tmp_path / "y.npz", images="X.npy")
    (tmp_path / "y.csv").write_bytes(b"image,label\n\xff,0\n")
    with pytest.raises(ValueError, match="labels: .* cannot be read"):
        read(tmp_path / "y.csv")
