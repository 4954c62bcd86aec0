"""Only sound images of three formats are decoded, upright; the world encoder's input is exact."""

import numpy as np
import pytest
import torch
from PIL import Image

from theworld.data.images import image_size, load_image, world_pixels


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def test_rgb_png_is_exact(tmp_path, pixels):
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert np.array_equal(np.array(load_image(tmp_path / "a.png")), pixels)
    assert image_size(tmp_path / "a.png") == (30, 20)


def test_exif_orientation_is_applied(tmp_path, pixels):
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its left side
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(np.array(load_image(tmp_path / "a.png")), np.rot90(pixels, 3))
    assert image_size(tmp_path / "a.png") == (20, 30)


def test_grey_and_palette_become_rgb(tmp_path, pixels):
    for mode in ("L", "P", "RGBA"):
        Image.fromarray(pixels).convert(mode).save(tmp_path / "a.png")
        assert load_image(tmp_path / "a.png").mode == "RGB"


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_refused_files(tmp_path, pixels):
    Image.fromarray(pixels).save(tmp_path / "a.gif")
    (tmp_path / "a.gif").rename(tmp_path / "gif.png")
    with pytest.raises(ValueError, match="gif.png: not a readable JPEG/PNG/WEBP image"):
        load_image(tmp_path / "gif.png")
    Image.new("1", (13000, 13000)).save(tmp_path / "bomb.png")
    for read in (load_image, image_size):
        with pytest.raises(ValueError, match="bomb.png: .*(169000000 pixels|decompression bomb)"):
            read(tmp_path / "bomb.png")
    Image.fromarray(pixels).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:-300])
    with pytest.raises(ValueError, match="cut.jpg: cannot be decoded"):
        load_image(tmp_path / "cut.jpg")
    Image.fromarray(pixels[..., 0].astype(np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(ValueError, match="deep.png: found mode 'I;16', expected 8 bits"):
        load_image(tmp_path / "deep.png")
    with pytest.raises(ValueError, match="none.png: cannot be decoded"):
        load_image(tmp_path / "none.png")


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
