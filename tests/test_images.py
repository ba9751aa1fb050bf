"""Any photo people have gives the right array, or one line that says why not."""

import inspect
import io
import struct
import warnings
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from PIL import Image

from pnp_ovss import InputError, images
from pnp_ovss.images import decode_image, find_images, read_image

# Two rows of three colours, all different, so that no turn or flip maps the picture onto itself.
UPRIGHT = np.array(
    [[(255, 0, 0), (0, 255, 0), (0, 0, 255)], [(255, 255, 0), (0, 255, 255), (255, 0, 255)]], dtype=np.uint8
)
WHITE = (255, 255, 255)


def saved(folder: Path, image: Image.Image, name: str = "photo.png", **options: object) -> Path:
    image.save(folder / name, **options)
    return folder / name


def test_a_path_a_text_a_pil_image_and_an_array_are_the_same_photo(tmp_path):
    path = saved(tmp_path, Image.fromarray(UPRIGHT))
    with Image.open(path) as image:
        for photo in (path, str(path), image, UPRIGHT):
            assert np.array_equal(read_image(photo), UPRIGHT)


def test_the_array_is_a_writable_copy():
    frozen = UPRIGHT.copy()
    frozen.flags.writeable = False
    photo = read_image(frozen)
    photo[:] = 0
    assert frozen.any()


def test_a_reversed_array_comes_back_contiguous():
    assert read_image(UPRIGHT[:, ::-1]).flags.c_contiguous


@pytest.mark.parametrize("name", ["photo.png", "photo.tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation, name):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path, Image.fromarray(UPRIGHT), name, exif=exif)
    turned = UPRIGHT if orientation < 5 else UPRIGHT.transpose(1, 0, 2)
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    assert np.array_equal(read_image(path), turned[::rows, ::columns])


def test_orientation_6_is_a_quarter_turn_to_the_right(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    photo = read_image(saved(tmp_path, Image.fromarray(UPRIGHT), exif=exif))
    assert photo.shape == (3, 2, 3)
    assert tuple(photo[0, 1]) == (255, 0, 0)  # what was top left is now top right


def test_damaged_exif_is_passed_over(tmp_path):
    path = saved(tmp_path, Image.fromarray(UPRIGHT), exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff\x00")
    assert np.array_equal(read_image(path), UPRIGHT)


def test_transparency_shows_white(tmp_path):
    pixels = np.array([[(255, 0, 0, 255), (255, 0, 0, 0), (255, 0, 0, 51)]], dtype=np.uint8)
    assert read_image(saved(tmp_path, Image.fromarray(pixels))).tolist() == [[[255, 0, 0], [255] * 3, [255, 204, 204]]]


def test_a_transparent_palette_colour_shows_white(tmp_path):
    image = Image.fromarray(np.array([[0, 1]], dtype=np.uint8))
    image.putpalette([9, 9, 9, 200, 0, 0])
    for name in ("photo.png", "photo.gif"):
        assert read_image(saved(tmp_path, image, name, transparency=0)).tolist() == [[[255] * 3, [200, 0, 0]]]
    alphas = read_image(saved(tmp_path, image, transparency=bytes([0, 51])))  # one alpha per palette colour
    assert alphas.tolist() == [[[255] * 3, [244, 204, 204]]]


def test_grey_with_alpha_shows_white(tmp_path):
    pixels = np.array([[(100, 255), (100, 0)]], dtype=np.uint8)
    assert read_image(saved(tmp_path, Image.fromarray(pixels, "LA"))).tolist() == [[[100] * 3, [255] * 3]]


@pytest.mark.parametrize(
    ("mode", "colour", "rgb"), [("L", 100, (100,) * 3), ("1", 1, WHITE), ("RGB", (1, 2, 3), (1, 2, 3))]
)
def test_grey_black_and_white_and_colour(tmp_path, mode, colour, rgb):
    assert tuple(read_image(saved(tmp_path, Image.new(mode, (3, 2), colour)))[1, 2]) == rgb


@pytest.mark.parametrize(
    ("ink", "rgb"), [((0, 0, 0, 0), WHITE), ((0, 255, 255, 0), (255, 0, 0)), ((0, 0, 0, 255), (0,) * 3)]
)
def test_cmyk(tmp_path, ink, rgb):
    path = saved(tmp_path, Image.new("CMYK", (8, 8), ink), "photo.jpg", quality=100)
    assert np.abs(read_image(path).astype(int) - rgb).max() <= 2


@pytest.mark.parametrize("name", ["photo.png", "photo.tif", "photo.pgm"])
def test_sixteen_bits_are_scaled_not_clipped(tmp_path, name):
    values = np.array([[0, 128, 129, 257, 32896, 65535]], dtype=np.uint16)
    photo = read_image(saved(tmp_path, Image.fromarray(values), name))
    assert photo[0].tolist() == [[v] * 3 for v in (0, 0, 1, 1, 128, 255)]


@pytest.mark.parametrize(("values", "grey"), [((0, 0.5, 1), (0, 128, 255)), ((0, 100, 255), (0, 100, 255))])
def test_floating_point_grey_is_0_to_1_or_0_to_255(tmp_path, values, grey):
    photo = read_image(saved(tmp_path, Image.fromarray(np.array([values], dtype=np.float32)), "photo.tif"))
    assert photo[0, :, 0].tolist() == list(grey)


def test_grey_values_without_a_meaning_are_refused(tmp_path):
    path = saved(tmp_path, Image.fromarray(np.array([[0, np.nan]], dtype=np.float32)), "photo.tif")
    with pytest.raises(InputError, match="grey values outside 0 to 65535"):
        read_image(path)


@pytest.mark.parametrize("name", ["photo.gif", "photo.webp", "photo.png"])
def test_of_an_animation_the_first_picture_counts(tmp_path, name):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "lime", "blue")]
    path = saved(tmp_path, frames[0], name, save_all=True, append_images=frames[1:], duration=100)
    assert np.abs(read_image(path).astype(int) - (255, 0, 0)).max() <= 3


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1)])
def test_odd_sizes(tmp_path, size):
    path = saved(tmp_path, Image.new("RGB", size, "red"), "photo.bmp")
    assert read_image(path).shape == (size[1], size[0], 3)


def bomb(folder: Path, width: int, height: int) -> Path:
    """Write a PNG of a few bytes whose header claims any size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    path = folder / "bomb.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )
    return path


def test_a_decompression_bomb_is_refused_by_its_header(tmp_path):
    with pytest.raises(InputError) as refusal:
        read_image(bomb(tmp_path, 15_000, 11_000))
    line = f"{tmp_path}/bomb.png has more than 150 million pixels; make it smaller first"
    assert str(refusal.value) == line
    with pytest.raises(InputError) as refusal:  # so large that Pillow itself refuses
        read_image(bomb(tmp_path, 100_000, 100_000))
    assert str(refusal.value) == line


def test_a_photo_that_memory_cannot_hold_is_one_line(tmp_path, monkeypatch):
    def full(image):
        raise MemoryError

    path = saved(tmp_path, Image.fromarray(UPRIGHT))
    monkeypatch.setattr(Image.Image, "convert", lambda *all: full(*all[:1]))
    with pytest.raises(InputError, match=r"photo.png cannot be read \(MemoryError\); check the file"):
        read_image(path)


def test_a_large_photo_below_the_limit_gives_no_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5)  # Pillow warns above this, and refuses above twice this
    path = saved(tmp_path, Image.fromarray(UPRIGHT))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(read_image(path), UPRIGHT)


def test_a_limit_of_one_s_own_is_the_one_that_is_reported(tmp_path):
    content = bomb(tmp_path, 100_000, 100_000).read_bytes()
    with pytest.raises(InputError, match="more than 20 million pixels"):
        decode_image(content, "the photo", 20_000_000)


@pytest.mark.parametrize("name", ["photo.jpg", "photo.png", "photo.gif", "photo.tif", "photo.webp", "photo.bmp"])
def test_a_file_cut_short_is_refused(tmp_path, name):
    path = saved(tmp_path, Image.effect_noise((64, 64), 90).convert("RGB"), name)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=r"is no picture|cannot be read") as refusal:
        read_image(path)
    assert "\n" not in str(refusal.value)


def test_files_that_are_no_photo_give_one_line_each(tmp_path):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("I am no photo.")
    (tmp_path / "drawing.jpg").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")  # would start a program
    no_picture = "{} is no picture; expected a JPEG, PNG, WebP, TIFF, BMP or GIF file"
    for name, line in {
        "missing.jpg": "there is no photo {}; check the path",
        "": "there is no photo {}; check the path",
        "empty.jpg": no_picture,
        "text.jpg": no_picture,
        "drawing.jpg": no_picture,
    }.items():
        with pytest.raises(InputError) as refusal:
            read_image(tmp_path / name)
        assert str(refusal.value) == line.format(tmp_path / name)


@pytest.mark.parametrize(
    "path", ["a\0b.jpg", "x" * 5000, "two\nlines.jpg", "~nobody-here/photo.jpg", "/dev/zero", "\udc80.jpg"]
)
def test_paths_that_no_photo_can_have_give_one_line(path):
    with pytest.raises(InputError) as refusal:
        read_image(path)
    assert str(refusal.value).isprintable()


@pytest.mark.parametrize(
    ("array", "came"),
    [
        (np.zeros((4, 5, 3), dtype=np.float32), "float32 of shape (4, 5, 3)"),
        (np.zeros((4, 5), dtype=np.uint8), "uint8 of shape (4, 5)"),
        (np.zeros((4, 5, 4), dtype=np.uint8), "uint8 of shape (4, 5, 4)"),
        (np.zeros((0, 5, 3), dtype=np.uint8), "uint8 of shape (0, 5, 3)"),
    ],
)
def test_other_arrays_are_refused(array, came):
    with pytest.raises(InputError) as refusal:
        read_image(array)
    expected = "expected a photo as uint8 array of shape (height, width, 3), RGB from 0 to 255"
    assert str(refusal.value) == f"{expected}, got {came}"


def test_other_things_are_refused():
    with pytest.raises(InputError, match=r"expected a photo as a path, a PIL image or an RGB uint8 array .*, got int"):
        inspect.unwrap(read_image)(7)  # unwrapped: in tests the types are checked before


def test_an_empty_pil_image_is_refused():
    with pytest.raises(InputError, match="expected at least one pixel in the PIL image, got 0 x 5"):
        read_image(Image.new("RGB", (0, 5)))


@pytest.fixture(scope="module")
def wholes() -> dict[str, bytes]:
    noise, files = Image.effect_noise((24, 24), 90).convert("RGB"), {}
    for kind in ("JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP", "PPM", "AVIF"):
        buffer = io.BytesIO()
        noise.save(buffer, format=kind)
        files[kind] = buffer.getvalue()
    return files


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_gives_a_photo_or_one_line_and_nothing_else(wholes, tmp_path, data):
    content = bytearray(wholes[data.draw(st.sampled_from(sorted(wholes)))])
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, min(len(content) - 1, 200)))] = data.draw(st.integers(0, 255))
    path = tmp_path / "photo"
    path.write_bytes(content[: data.draw(st.integers(1, len(content)))])
    with suppress(InputError):
        assert read_image(path).dtype == np.uint8


@pytest.fixture
def album(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("b.jpg", "a.PNG", ".hidden.jpg", "notes.txt", "sub/c.jpg", "sub/deep/d.webp", "empty/readme"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("patterns", "found"),
    [
        (["b.jpg"], ["b.jpg"]),
        (["."], ["a.PNG", "b.jpg"]),
        (["sub", "b.jpg"], ["sub/c.jpg", "b.jpg"]),
        (["b.jpg", ".", "./b.jpg", "*.jpg"], ["b.jpg", "a.PNG"]),
        (["*"], ["a.PNG", "b.jpg"]),
        (["**/*.jpg"], ["b.jpg", "sub/c.jpg"]),
        (["notes.txt", "missing.jpg"], ["notes.txt", "missing.jpg"]),
    ],
)
def test_files_folders_and_globs_are_found_once_and_in_order(album, patterns, found):
    assert [str(path) for path in find_images(patterns)] == found


def test_a_photo_named_in_two_ways_is_found_once(album):
    assert find_images(["b.jpg", album / "b.jpg", "sub/../b.jpg"]) == [Path("b.jpg")]


def test_a_name_with_brackets_is_that_file(album):
    Path("a[1].jpg").touch()
    assert find_images(["a[1].jpg"]) == [Path("a[1].jpg")]


@pytest.mark.parametrize(
    ("patterns", "line"),
    [
        ([], "expected at least one photo, got none; name files, folders or globs such as 'photos/*.jpg'"),
        (["empty"], "the folder empty holds no picture; folders within it are named one by one"),
        (["b.jpg", "*.tiff"], "no picture matches *.tiff; check the pattern and the folder"),
        (["*.txt"], "no picture matches *.txt; check the pattern and the folder"),
    ],
)
def test_nothing_found_is_reported(album, patterns, line):
    with pytest.raises(InputError) as refusal:
        find_images(patterns)
    assert str(refusal.value) == line


def test_a_folder_that_may_not_be_read_is_reported(album, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(images.os, "listdir", refuse)
    with pytest.raises(InputError, match=r"the folder sub cannot be read \(permission denied\); check its permissions"):
        find_images(["sub"])


def test_an_array_is_as_large_as_a_file_may_be():
    large = np.broadcast_to(np.uint8(7), (100_000, 100_000, 3))  # of one byte
    with pytest.raises(InputError, match="^expected a photo of at most 150 million pixels, got one of shape "):
        read_image(large)
