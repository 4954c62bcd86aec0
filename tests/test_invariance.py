"""Loss and gradient of an optimizer step do not depend on how its samples are packed and split, in double precision."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.tiny import (
    IMAGE_SIDE,
    IMAGE_TOKENS,
    WORLD_SIDE,
    WORLD_TOKENS,
    gemma_config,
    inputs,
    make_image_processor,
    make_model,
    make_tokenizer,
    osd_row,
    write_osd,
)
from theworld.data.indexing.build import build_index
from theworld.data.packing.collator import pack
from theworld.data.packing.loader import PlanLoader
from theworld.data.packing.mixture import Mixture, Source
from theworld.data.processor import TheWorldProcessor
from theworld.data.rows.osd import OSDRows
from theworld.data.samples import OSDSamples
from theworld.data.stores import FolderStore
from theworld.types import Batch

ROWS = 8
LAYOUTS = {"all in one row": (1, 1000), "two rows": (2, 600), "four rows": (4, 320), "one by one": (ROWS, 160)}
"""Rows of the step and tokens of a row; every layout holds all samples in a single optimizer step."""

Gradients = dict[str, torch.Tensor]


@pytest.fixture(autouse=True)
def _double(monkeypatch):
    """Gemma computes norms in float32 whatever its weights are; here in float64, or rounding would hide the rest.

    One thread: matrices so small gain nothing from more, and lose much where cores are busy.
    """
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def model():
    """Two layers, both with a window that spans a sample; everything but the VAE trains."""
    text = {"vocab_size": len(make_tokenizer()), "num_hidden_layers": 2, "sliding_window": 256}
    made = make_model(gemma_config=gemma_config(**text))
    for parameter in made.parameters():
        parameter.data = parameter.data.double()
    made.cosmos_encoder.vae.requires_grad_(False)
    return made


@pytest.fixture
def images(tmp_path) -> Path:
    return tmp_path / "images"


@pytest.fixture
def samples(tmp_path, images) -> OSDSamples:
    processor = TheWorldProcessor(
        make_tokenizer(),
        make_image_processor(IMAGE_SIDE),
        num_image_tokens=IMAGE_TOKENS,
        num_world_tokens=WORLD_TOKENS,
        world_image_size=WORLD_SIDE,
    )
    answers = ("Yes" + "." * (1 + number % 4) for number in range(ROWS))
    rows = [osd_row(i, turns=1 + i % 2, answer=answer) for i, answer in enumerate(answers)]
    path, _ = write_osd(tmp_path, rows)
    opened = OSDRows(path, image_folder=images)
    index = build_index(opened, processor, max_seq_length=160, name="train")
    return OSDSamples(FolderStore(index, rows_path=path, image_folder=images), index=index, processor=processor)


def _batches(samples: OSDSamples | Mixture, layout: str) -> list[Batch]:
    micro_batches, budget = LAYOUTS[layout]
    loader = PlanLoader(samples, budget=budget, micro_batches_per_step=micro_batches)
    assert loader.plan.num_steps == 1
    return list(loader)


def _loss_and_gradients(model, batches: list[Batch], denominator: float | None = None) -> tuple[float, Gradients]:
    """As the module trains: every micro-batch's loss sum over the step's target tokens, gradients summed."""
    total = 0.0
    for batch in batches:
        arguments = {
            name: value.double() if value.is_floating_point() else value
            for name, value in inputs(batch, labels=True).items()
        }
        weights = None if batch.target_weights is None else batch.target_weights.double()
        output = model(**arguments, target_weights=weights)
        loss = output.loss_sum / (denominator or batch.step_target_tokens)
        loss.backward()
        total += loss.item()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return total, gradients


def _assert_same(found: tuple[float, Gradients], expected: tuple[float, Gradients]) -> None:
    assert found[0] == pytest.approx(expected[0], rel=1e-12)
    assert found[1].keys() == expected[1].keys()
    largest = max(float(gradient.abs().max()) for gradient in expected[1].values())  # some are 0 but for rounding
    for name, gradient in found[1].items():
        torch.testing.assert_close(gradient, expected[1][name], rtol=1e-12, atol=1e-12 * largest, msg=name)


@pytest.mark.parametrize("weighted", [False, True], ids=["alike", "weighted"])
def test_packing_and_splitting_change_neither_loss_nor_gradient(model, samples, weighted):
    mixture = Mixture([Source("a", samples, 0.5), Source("b", samples, 0.5, loss_weight=0.25)])
    made = {layout: _batches(mixture if weighted else samples, layout) for layout in LAYOUTS}
    expected = _loss_and_gradients(model, made["one by one"])
    assert expected[0] > 1
    for layout, batches in made.items():
        assert len(batches) == LAYOUTS[layout][0]
        _assert_same(_loss_and_gradients(model, batches), expected)
    if weighted:  # control: without the weights it is another loss
        unweighted = [replace(batch, target_weights=None) for batch in made["four rows"]]
        assert abs(_loss_and_gradients(model, unweighted)[0] - expected[0]) > 1e-3


def test_the_mean_of_means_is_another_loss(model, samples):
    """Positive control: what averaging over micro-batches, as most trainers do, would give."""
    batches = _batches(samples, "four rows")
    assert len({batch.num_target_tokens for batch in batches}) > 1
    means = [replace(batch, step_target_tokens=4 * batch.num_target_tokens) for batch in batches]
    right, wrong = _loss_and_gradients(model, batches), _loss_and_gradients(model, means)
    assert abs(right[0] - wrong[0]) > 1e-6
    with pytest.raises(AssertionError):
        _assert_same((right[0], wrong[1]), right)


@pytest.mark.parametrize("layout", ["all in one row", "four rows"])
def test_a_sample_that_failed_leaves_no_trace(model, samples, images, layout):
    """With its targets out of the denominator, the step is that of the other samples alone."""
    Image.new("RGB", (40, 30)).save(images / "img5.png")
    batches = _batches(samples, layout)
    (failed,) = (failure for batch in batches for failure in batch.failed)
    assert failed.id == "row-5"
    remaining = batches[0].step_target_tokens - failed.targets
    others = [
        pack([samples[i]], budget=160, pad_token_id=samples.processor.pad_token_id, step_target_tokens=1)
        for i in range(ROWS)
        if i != 5
    ]
    expected = _loss_and_gradients(model, others, denominator=remaining)
    _assert_same(_loss_and_gradients(model, batches, denominator=remaining), expected)
    with pytest.raises(AssertionError):  # control: the planned denominator is another
        _assert_same(_loss_and_gradients(model, batches), expected)
