"""Only sound images of three formats are decoded, upright; the world encoder's input is exact."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from theworld.data.pictures.images import check_image, load_image, world_pixels
from theworld.data.rows.faults import TOO_LARGE, UNREADABLE_IMAGE, RowError


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def size(data):
    found = check_image(data, "a", decode=False)
    assert check_image(data, "a", decode=True) == found
    return found


def test_rgb_png_is_exact(pixels):
    data = encoded(Image.fromarray(pixels))
    assert np.array_equal(np.array(load_image(data, "a.png")), pixels)
    assert size(data) == (30, 20)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_exif_orientation_is_applied(pixels, kind):
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its left side
    lying = encoded(Image.fromarray(pixels), kind, exif=exif)
    plain = encoded(Image.fromarray(pixels), kind)
    assert np.array_equal(np.array(load_image(lying, "a")), np.rot90(np.array(load_image(plain, "b")), 3))
    assert size(lying) == (20, 30)
    assert size(plain) == (30, 20)


def test_other_colours_become_rgb(pixels):
    for mode in ("L", "P", "RGBA"):
        assert load_image(encoded(Image.fromarray(pixels).convert(mode)), "a.png").mode == "RGB"
    flat = Image.new("RGB", (16, 16), (200, 40, 90))
    cmyk = load_image(encoded(flat.convert("CMYK"), "JPEG", quality=95), "a.jpg")
    assert cmyk.mode == "RGB"
    assert np.abs(np.array(cmyk).astype(int) - np.array(flat)).max() <= 3


def test_the_first_frame_of_an_animation_is_used(pixels):
    frames = [Image.fromarray(pixels), Image.fromarray(255 - pixels)]
    for kind in ("WEBP", "PNG"):
        options = {"lossless": True} if kind == "WEBP" else {}
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert Image.open(io.BytesIO(data)).n_frames == 2
        assert np.array_equal(np.array(load_image(data, "a")), pixels)
        assert size(data) == (30, 20)


def refused(pixels):
    image = Image.fromarray(pixels)
    whole = encoded(image, "JPEG")
    yield encoded(image, "GIF"), UNREADABLE_IMAGE, "a: not a readable JPEG/PNG/WEBP image"
    yield b"", UNREADABLE_IMAGE, "a: not a readable"
    yield b"no image", UNREADABLE_IMAGE, "a: not a readable"
    yield encoded(Image.fromarray(pixels[..., 0].astype(np.uint16))), UNREADABLE_IMAGE, "a: found mode 'I;16'"
    yield encoded(Image.new("1", (8000, 8000))), TOO_LARGE, "8000 x 8000 = 64000000 pixels, expected at most 40000000"
    yield encoded(Image.new("1", (14000, 14000))), TOO_LARGE, "decompression bomb"
    for cut in (whole[:-300], encoded(image)[:-300]):
        yield cut, UNREADABLE_IMAGE, "a: cannot be decoded"


def test_refused_files(pixels):
    for data, code, message in refused(pixels):
        for read in (lambda data: load_image(data, "a"), lambda data: check_image(data, "a", decode=True)):
            with pytest.raises(RowError, match=message) as found:
                read(data)
            assert found.value.code == code


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_damage_of_any_kind_is_a_row_error(pixels):
    """Pillow raises ValueError, ZeroDivisionError, TypeError and others over damaged EXIF alone."""
    exif = Image.Exif()
    exif[0x0112] = 6
    whole = encoded(Image.fromarray(pixels), "JPEG", exif=exif)
    rng = np.random.default_rng(0)
    decoded = 0
    for _ in range(600):
        data = bytearray(whole)
        data[rng.integers(60)] = rng.integers(256)
        try:
            load_image(bytes(data), "a")
            decoded += 1
        except RowError:
            continue
    assert 0 < decoded < 600


def test_headers_alone_do_not_tell_damage(pixels):
    cut = encoded(Image.fromarray(pixels), "JPEG")[:-300]
    assert check_image(cut, "a", decode=False) == (30, 20)


def test_world_pixels_range_and_values(pixels):
    image = Image.fromarray(pixels)
    same = world_pixels(Image.fromarray(pixels[:20, :20]), 20)
    assert torch.equal(same, torch.from_numpy(pixels[:20, :20].copy()).permute(2, 0, 1).float() / 127.5 - 1)
    small = world_pixels(image, 8)
    assert small.shape == (3, 8, 8)
    assert small.dtype == torch.float32
    resized = np.array(image.resize((8, 8), Image.Resampling.BICUBIC))
    assert torch.allclose((small + 1) * 127.5, torch.from_numpy(resized).permute(2, 0, 1).float(), atol=1e-4)
    assert world_pixels(Image.new("RGB", (9, 9), (255, 255, 255)), 4).max() == 1
    assert world_pixels(Image.new("RGB", (9, 9)), 4).min() == -1
