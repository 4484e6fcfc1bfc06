"""Pictures: what is in them as it is, or refused with the reason; nothing left out."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from curvdetect import cli
from curvdetect.storage import read_images, read_picture

GREY = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
COLOUR = np.stack([GREY, GREY[::-1], 255 - GREY], axis=2)


def png(values, colour_type):
    """Write a PNG without Pillow, in the depth of the values."""
    values = np.asarray(values)

    def chunk(name, data):
        crc = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + crc

    height, width = values.shape[:2]
    depth = 8 * values.itemsize
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    big_endian = values.astype(values.dtype.newbyteorder(">"))
    rows = b"".join(b"\0" + row.tobytes() for row in big_endian)
    parts = (b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def tiff(values, photometric):
    """Write a TIFF without Pillow, in the depth of the values."""
    height, width, n = values.shape
    start = 8 + 2 + 12 * 9 + 4
    tags = [
        (256, 3, 1, width),
        (257, 3, 1, height),
        (258, 3, n, start),
        (259, 3, 1, 1),
        (262, 3, 1, photometric),
        (273, 4, 1, start + 2 * n),
        (277, 3, 1, n),
        (278, 3, 1, height),
        (279, 4, 1, values.nbytes),
    ]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    bits = struct.pack(f"<{n}H", *[8 * values.itemsize] * n)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", 0)
    return head + bits + values.tobytes()


def written(picture, suffix, **options):
    file = io.BytesIO()
    picture.save(file, suffix, **options)
    return file.getvalue()


def read(content, channels=3, size=(3, 4), **options):
    return read_picture(io.BytesIO(content), (channels, *size), **options)


def as_given(values):
    return np.moveaxis(np.atleast_3d(values), 2, 0) / np.float32(255)


DEEP = np.uint16(257) * COLOUR.astype(np.uint16) + 1

REFUSED = {
    "PNG, grey": (png(DEEP[..., :1], 0), "16 or more bits"),
    "PNG, colour": (png(DEEP, 2), r"16 or more bits \(mode RGB;16B\)"),
    "PNG, grey and alpha": (png(DEEP[..., :2], 4), "16 or more bits"),
    "PNG, colour and alpha": (png(DEEP[..., [0, 1, 2, 2]], 6), "16 or more bits"),
    "TIFF, colour": (tiff(DEEP, 2), "16 or more bits"),
    "TIFF, CMYK": (tiff(DEEP[..., [0, 1, 2, 2]], 5), "16 or more bits"),
    **{
        f"frames, {kind}": (
            written(
                Image.fromarray(GREY),
                kind,
                save_all=True,
                append_images=[Image.fromarray(GREY[::-1])],
            ),
            "it has 2 frames, not one",
        )
        for kind in ("GIF", "PNG", "TIFF", "WEBP")
    },
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_would_be_cut_is_refused(kind):
    content, reason = REFUSED[kind]
    for options in ({}, {"resize": True}):
        with pytest.raises(ValueError, match=reason):
            read(content, **options)


def palette(transparent):
    """Return a picture of three colours, the first of them transparent or not."""
    picture = Image.new("P", (4, 3))
    picture.putpalette([255, 0, 0, 0, 255, 0, 10, 20, 30])
    picture.putdata([0, 1, 2] * 4)
    options = {"transparency": 0} if transparent else {}
    return written(picture, "png", **options)


def of_palette(first):
    colours = np.uint8([first, [0, 255, 0], [10, 20, 30]])
    return colours[np.arange(12).reshape(3, 4) % 3]


ALPHA = np.uint8(np.linspace(0, 255, 12).reshape(3, 4))
ON_WHITE = np.round(
    255 - (255 - GREY.astype(float)) * (ALPHA / 255)  # closed form of the mixture
)
CMYK = np.stack([GREY, GREY // 2, GREY // 3, GREY // 4], axis=2)
INK = 255 - CMYK[..., :3].astype(int)
PRINTED = np.round(INK * (255 - CMYK[..., 3:].astype(int)) / 255)

READ = {
    "PNG, colour": (png(COLOUR, 2), COLOUR),
    "PNG, grey and alpha": (png(np.stack([GREY, ALPHA], 2), 4), ON_WHITE[..., None]),
    "TIFF, colour": (tiff(COLOUR, 2), COLOUR),
    "palette": (palette(False), of_palette([255, 0, 0])),
    "palette, transparent": (palette(True), of_palette([255, 255, 255])),
    "CMYK": (tiff(CMYK, 5), PRINTED),
    "one colour transparent": (
        written(Image.fromarray(GREY), "png", transparency=20),
        np.where(GREY == 20, 255, GREY)[..., None],
    ),
}


@pytest.mark.parametrize("kind", READ)
def test_values_are_those_of_the_file(kind):
    content, values = READ[kind]
    expected = as_given(np.broadcast_to(values, (3, 4, 3)))
    # Pillow mixes transparency and inks in integers.
    tolerance = 1.01 / 255 if "alpha" in kind or kind == "CMYK" else 1e-7
    np.testing.assert_allclose(read(content), expected, rtol=0, atol=tolerance)


def test_a_network_that_takes_no_pictures():
    with pytest.raises(ValueError, match=r"takes no pictures.*but \(4, 4, 3\)"):
        read_picture(io.BytesIO(READ["CMYK"][0]), (4, 4, 3))


#: What the first row and the first column of the stored picture are when it is shown.
SHOWN = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a.swapaxes(0, 1)[::-1],
}


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", SHOWN)
def test_pictures_are_turned_as_they_are_shown(kind, orientation):
    picture = Image.fromarray(COLOUR)
    exif = picture.getexif()
    exif[274] = orientation
    lossless = {"lossless": True} if kind == "WEBP" else {}
    content = written(picture, kind, exif=exif, **lossless)
    expected = SHOWN[orientation](COLOUR)
    np.testing.assert_allclose(
        read(content, size=expected.shape[:2]), as_given(expected), atol=1e-7
    )
    with pytest.raises(ValueError, match="pixels, not"):
        read(content, size=expected.shape[1::-1])


def test_exif_that_makes_no_sense_changes_nothing():
    content = written(Image.fromarray(COLOUR), "png", exif=b"Exif\0\0nonsense")
    np.testing.assert_allclose(read(content), as_given(COLOUR), atol=1e-7)


@pytest.fixture
def folder(tmp_path):
    """Two classes, one of them a link, and much that is no picture."""
    (tmp_path / "elsewhere").mkdir()
    root = tmp_path / "images"
    (root / "cats").mkdir(parents=True)
    for path in (root / "cats" / "a.png", tmp_path / "elsewhere" / "b.JPE"):
        Image.fromarray(GREY).save(path, "png")
    (root / "dogs").symlink_to(tmp_path / "elsewhere")
    (root / "dogs" / "round").symlink_to(root)
    (root / "cats" / "gone.png").symlink_to(root / "nowhere.png")
    (root / "cats" / "raw.cr2").write_bytes(b"a camera's own format")
    (root / "LICENSE").write_text("no picture")
    lfs = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    (root / "cats" / "pointer.png").write_text(lfs)
    return root


def test_nothing_in_a_folder_is_left_out_without_a_word(folder):
    (batch,) = read_images(folder, (1, 3, 4))
    assert batch.names == ["cats/a.png", "dogs/b.JPE"]
    np.testing.assert_allclose(batch.X, [as_given(GREY)] * 2)
    assert list(batch.refused) == ["cats/pointer.png"]
    assert "a pointer of git-lfs" in batch.refused["cats/pointer.png"]
    assert batch.skipped == {
        "LICENSE": "its name does not end as those of pictures do",
        "cats/gone.png": "it is a link that leads nowhere",
        "cats/raw.cr2": "its name does not end as those of pictures do",
        "dogs/round": "it is a link to a folder that it lies in",
    }


def test_what_is_skipped_is_said_once(folder, capsys, tmp_path):
    for position in range(9):
        (folder / f"{position}.txt").write_text("no picture")
    batches = list(read_images(folder, (1, 3, 4), batch_size=1))
    assert [len(batch.skipped) for batch in batches] == [13, 0, 0]
    argv = ["fit", "--model", "curvdetect.study.networks:LeNet", "--input-shape"]
    argv += ["1,28,28", "--images", str(folder), "--out", str(tmp_path / "g")]
    assert cli.main(argv) == 1
    said = capsys.readouterr().err
    assert "skipped 0.txt, 1.txt, 2.txt, 3.txt, 4.txt and 6 more: its name" in said
    assert "skipped cats/gone.png: it is a link that leads nowhere" in said


def test_two_arrays_that_could_be_meant(tmp_path):
    X = np.zeros((2, 1, 3, 4), np.float32)
    np.savez(tmp_path / "x.npz", X=X, images=X + 1)
    with pytest.raises(ValueError, match='"X" or "images", and not both'):
        list(read_images(tmp_path / "x.npz", (1, 3, 4)))
    np.savez(tmp_path / "x.npz", images=X + 1, y=[1, 2])
    (batch,) = read_images(tmp_path / "x.npz", (1, 3, 4))
    assert (batch.X == 1).all()


@pytest.mark.parametrize("header", [b"{'(", b"{'descr': (", b"[" * 200, b"\n  1\n 2"])
def test_an_array_whose_header_is_broken(header, tmp_path):
    path = tmp_path / "x.npy"
    length = len(header).to_bytes(2, "little")
    path.write_bytes(b"\x93NUMPY\x01\x00" + length + header)
    with pytest.raises(ValueError, match="x.npy cannot be read: "):
        list(read_images(path, (1, 3, 4)))


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".NPY"])
def test_an_array_that_is_a_pointer(suffix, tmp_path):
    path = tmp_path / f"x{suffix}"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(ValueError, match="a pointer of git-lfs.* git lfs pull"):
        list(read_images(path, (1, 3, 4)))
