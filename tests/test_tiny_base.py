"""The base that ships with the package: what it weighs, what it knows, and that training from it starts calmly."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from theworld.assets import TINY_BASE, resolve
from theworld.data.packing.collator import pack, pad
from theworld.data.pictures.regions import draw_regions, global_regions
from theworld.data.processor import TheWorldProcessor
from theworld.data.synthetic.base_questions import pretrain_rows
from theworld.data.synthetic.questions import QuestionDeck
from theworld.data.synthetic.rows import Row, training_row
from theworld.data.synthetic.scenes import draw_scene, encode_jpeg
from theworld.data.synthetic.truth import SceneTruth
from theworld.models.theworld import TheWorld
from theworld.types import PADDING_DOCUMENT, Batch, Sample

HELD_OUT_FIRST = 900_000  # experiments/tiny_base/make.py trains on scenes from 0 on
DOCUMENTED_LEARNING_RATE = 1e-4  # configs/stage1.yaml


@pytest.fixture(scope="module")
def processor() -> TheWorldProcessor:
    return TheWorldProcessor.from_pretrained(TINY_BASE, num_world_tokens=64, world_image_size=64)


@pytest.fixture(scope="module")
def scenes() -> list[tuple[Image.Image, SceneTruth]]:
    from theworld.data.synthetic.render import SceneRenderer

    renderer = SceneRenderer(128)
    drawn = [draw_scene(renderer, seed=0, split="pretrain", number=HELD_OUT_FIRST + i) for i in range(12)]
    renderer.close()
    return [(Image.open(io.BytesIO(encode_jpeg(rgb))).convert("RGB"), truth) for rgb, truth in drawn]


def test_sizes_are_those_of_an_embedded_default() -> None:
    folder = Path(resolve(TINY_BASE))
    size = sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
    model = TheWorld.from_pretrained(TINY_BASE, world_image_size=64)
    counts = model.parameter_counts()
    assert size < 10_000_000
    assert counts["language"] + counts["vision"] == 2_330_624
    assert counts["world_encoder"] == 272_176


def test_tokenizer_round_trips_any_text_and_knows_gemmas_template(processor: TheWorldProcessor) -> None:
    tokenizer = processor.tokenizer
    text = "Region [3]'s café is 12.5 cm – 漢字 🙂  wide\n\nok"
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text
    rendered = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes."}], tokenize=False
    )
    expected = "<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\nYes.<end_of_turn>\n"
    assert rendered == expected


def test_names_colours_and_places_on_unseen_scenes(
    processor: TheWorldProcessor, scenes: list[tuple[Image.Image, SceneTruth]]
) -> None:
    gemma_only = TheWorldProcessor.from_pretrained(
        TINY_BASE, num_world_tokens=0, world_image_size=64, enable_world=False
    )
    model = TheWorld.from_pretrained(TINY_BASE, enable_world=False, dtype=torch.float32)
    prompts, answers = [], []
    for number, (image, truth) in enumerate(scenes):
        for row in pretrain_rows(truth, np.random.default_rng(number), num_rows=2, turns_per_row=1):
            prompt, answer = _prompt(gemma_only, row, image)
            prompts.append(prompt)
            answers.append(answer)
    said = _greedy(model, gemma_only, pad(prompts, pad_token_id=gemma_only.pad_token_id, side="left"))
    right = np.mean([ours == truth for ours, truth in zip(said, answers, strict=True)])
    blind = np.mean([ours == truth for ours, truth in zip(said[2:] + said[:2], answers, strict=True)])
    assert right >= 0.75
    assert blind < 0.5  # control: answers given to the next scene's questions


@pytest.mark.parametrize("seed", range(5))
def test_first_projection_step_does_not_raise_the_loss(
    seed: int, processor: TheWorldProcessor, scenes: list[tuple[Image.Image, SceneTruth]]
) -> None:
    batch = _training_batch(processor, scenes[:4])
    before, after = _losses_around_one_step(batch, seed=seed, learning_rate=DOCUMENTED_LEARNING_RATE)
    assert after <= 1.05 * before


def test_first_step_check_can_fail(processor: TheWorldProcessor, scenes: list[tuple[Image.Image, SceneTruth]]) -> None:
    """Control: the same step uphill raises the loss, so the measurement sees a rise."""
    batch = _training_batch(processor, scenes[:4])
    before, after = _losses_around_one_step(batch, seed=0, learning_rate=0.03, uphill=True)
    assert after > 1.05 * before


def _losses_around_one_step(
    batch: Batch, *, seed: int, learning_rate: float, uphill: bool = False
) -> tuple[float, float]:
    torch.manual_seed(seed)
    model = TheWorld.from_pretrained(TINY_BASE, world_image_size=64, dtype=torch.float32)
    trained = [p for p in model.parameters() if p.requires_grad]
    assert sum(p.numel() for p in trained) == model.parameter_counts()["world_projector"]
    optimizer = torch.optim.AdamW(trained, lr=learning_rate, weight_decay=0.0, maximize=uphill)
    losses = []
    for _ in range(2):
        optimizer.zero_grad()
        loss = model(
            batch.input_ids,
            token_type_ids=batch.token_type_ids,
            position_ids=batch.position_ids,
            document_ids=batch.document_ids,
            pixel_values=batch.pixel_values,
            world_pixel_values=batch.world_pixel_values,
            labels=batch.labels,
            target_positions=batch.target_positions,
        ).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses[0], losses[1]


def _training_batch(processor: TheWorldProcessor, scenes: list[tuple[Image.Image, SceneTruth]]) -> Batch:
    deck = QuestionDeck()
    samples = []
    for number, (image, truth) in enumerate(scenes):
        row = training_row(truth, deck, np.random.default_rng(number), turns=6)
        assert row is not None
        turns, marked = _named(row, image)
        samples.append(processor.encode(turns, marked, row["id"], max_seq_length=512))
    targets = sum(int((sample.labels >= 0).sum()) for sample in samples)
    budget = sum(len(sample.input_ids) for sample in samples)
    return pack(samples, budget=budget, pad_token_id=processor.pad_token_id, step_target_tokens=targets)


def _prompt(processor: TheWorldProcessor, row: Row, image: Image.Image) -> tuple[Sample, str]:
    turns, marked = _named(row, image)
    return processor.encode_prompt(turns[:1], marked, row["id"]), turns[0][1]


def _named(row: Row, image: Image.Image) -> tuple[list[tuple[str, str]], Image.Image]:
    values = [message["value"].removeprefix("<image>\n") for message in row["conversations"]]
    raw = list(zip(values[0::2], values[1::2], strict=True))
    turns, regions = global_regions(raw, [tuple(float(x) for x in box) for box in row["bbox"]])
    return list(turns), draw_regions(image, regions)


def _greedy(model: TheWorld, processor: TheWorldProcessor, batch: Batch) -> list[str]:
    written = model.generate(
        batch.input_ids,
        attention_mask=(batch.document_ids != PADDING_DOCUMENT).long(),
        token_type_ids=batch.token_type_ids,
        pixel_values=batch.pixel_values,
        max_new_tokens=80,
        do_sample=False,
        eos_token_id=processor.end_of_turn_id,
        pad_token_id=processor.pad_token_id,
    )
    return processor.tokenizer.batch_decode(written[:, batch.input_ids.shape[1] :], skip_special_tokens=True)
