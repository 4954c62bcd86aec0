"""The quick way to the vision tower's pixels gives what transformers' image processor gives, bit for bit."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import Gemma3ImageProcessorPil

from theworld.data.pictures.byte_table import ByteTable
from theworld.data.pictures.vision_pixels import VisionPixels

IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}


def _image(width, height):
    return Image.fromarray(np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("side", "settings"),
    [
        (896, {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}),
        (31, {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}),
        (32, IMAGENET),
        (32, IMAGENET | {"resample": Image.Resampling.BICUBIC}),
        (32, IMAGENET | {"rescale_factor": 1 / 127}),
        (32, {"do_normalize": False}),
        (32, {"do_rescale": False, "do_normalize": False}),
    ],
)
@pytest.mark.parametrize("size", [(640, 480), (33, 71)])
def test_values_are_those_of_transformers(side, settings, size):
    processor = Gemma3ImageProcessorPil(size={"height": side, "width": side}, do_pan_and_scan=False, **settings)
    expected = processor(images=[_image(*size)], return_tensors="pt")["pixel_values"].to(torch.float32)
    found = VisionPixels(processor)(_image(*size))
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


def test_an_image_processor_without_a_fixed_size_is_refused():
    processor = Gemma3ImageProcessorPil(size={"shortest_edge": 32}, **IMAGENET)
    with pytest.raises(ValueError, match="expected a fixed height and width"):
        VisionPixels(processor)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (3, 1), (2, 2), (5, 7)])
def test_a_table_gives_each_byte_its_channel_s_value(width, height):
    values = np.random.default_rng(0).normal(size=(3, 256)).astype(np.float32)
    image = _image(width, height)
    pixels = np.asarray(image)
    expected = np.stack([values[channel][pixels[:, :, channel]] for channel in range(3)])
    assert torch.equal(ByteTable(values)(image), torch.from_numpy(expected))


def test_what_is_no_table_or_no_rgb_image_is_refused():
    values = np.zeros((3, 256), dtype=np.float32)
    with pytest.raises(ValueError, match=r"found float64\[3, 256\], expected float32"):
        ByteTable(values.astype(np.float64))
    with pytest.raises(ValueError, match="mode 'L', expected RGB"):
        ByteTable(values)(Image.new("L", (4, 4)))
