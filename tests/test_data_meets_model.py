"""From OSD rows on disk through processor and collator into the model: the two sides agree on every token."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch.nn import functional as F

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
from theworld.data.packing.collator import pack, pad
from theworld.data.pictures.images import load_image
from theworld.data.pictures.regions import draw_regions, global_regions
from theworld.data.processor import TheWorldProcessor
from theworld.data.rows.osd import OSDRows
from theworld.data.samples import OSDSamples
from theworld.data.stores import FolderStore
from theworld.types import IGNORE_INDEX, TokenType

NEW_TOKENS = 6


class Pair:
    """A model, and samples from disk made by the processor that has the same settings."""

    def __init__(self, folder, *, world: bool) -> None:
        tokenizer = make_tokenizer()
        self.world = world
        self.model = make_model(gemma_config=gemma_config(vocab_size=len(tokenizer)), enable_world=world)
        self.processor = TheWorldProcessor(
            tokenizer,
            make_image_processor(IMAGE_SIDE),
            num_image_tokens=IMAGE_TOKENS,
            num_world_tokens=WORLD_TOKENS,
            world_image_size=WORLD_SIDE,
            enable_world=world,
        )
        path, images = write_osd(folder, [osd_row(i, turns=1 + i % 3) for i in range(3)])
        self.rows = OSDRows(path, image_folder=images)
        index = build_index(self.rows, self.processor, max_seq_length=400, name="train")
        store = FolderStore(index, rows_path=path, image_folder=images)
        self.samples = OSDSamples(store, index=index, processor=self.processor)
        self.all = [self.samples[i] for i in range(len(self.samples))]

    def prompt(self, number: int, turns: int):
        """The inference prompt of the row's first `turns` turns: the last question is asked."""
        row = self.rows[number]
        named, regions = global_regions(row.turns, row.boxes)
        image = draw_regions(load_image(self.rows.images.read(row.image), row.image), regions)
        return self.processor.encode_prompt(named[:turns], image, row.id)

    def padded(self, samples, side="left"):
        return pad(samples, pad_token_id=self.processor.pad_token_id, side=side)

    def packed(self, samples, budget):
        return pack(samples, budget=budget, pad_token_id=self.processor.pad_token_id, step_target_tokens=1)

    def generate(self, samples):
        batch = self.padded(samples)
        made = self.model.generate(
            input_ids=batch.input_ids,
            token_type_ids=batch.token_type_ids,
            attention_mask=(batch.document_ids >= 0).long(),
            pixel_values=batch.pixel_values,
            world_pixel_values=batch.world_pixel_values,
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            eos_token_id=None,
        )
        return made[:, batch.input_ids.shape[1] :]


@pytest.fixture(scope="module", params=[True, False], ids=["world on", "world off"])
def pair(request, tmp_path_factory) -> Pair:
    return Pair(tmp_path_factory.mktemp("rows"), world=request.param)


def test_model_and_processor_name_the_same_tokens(pair):
    config, processor = pair.model.config, pair.processor
    assert config.gemma_config.image_token_id == processor.image_token_id
    assert config.gemma_config.mm_tokens_per_image == processor.num_image_tokens
    for sample in pair.all:
        assert torch.equal(pair.model.token_types(sample.input_ids), sample.token_type_ids)
    if pair.world:
        ids = (processor.start_of_world_id, processor.world_token_id, processor.end_of_world_id)
        assert ids == (config.start_of_world_token_id, config.world_token_id, config.end_of_world_token_id)
        assert config.num_world_tokens == processor.num_world_tokens


@torch.no_grad()
@pytest.mark.parametrize("world_position", ["first", "after_image"])
def test_the_image_sees_only_world_tokens_that_stand_before_it(pair, world_position):
    if not pair.world:
        return
    settings = {"num_image_tokens": IMAGE_TOKENS, "num_world_tokens": WORLD_TOKENS, "world_image_size": WORLD_SIDE}
    tokenizer, image_processor = pair.processor.tokenizer, pair.processor.image_processor
    processor = TheWorldProcessor(tokenizer, image_processor, world_position=world_position, **settings)
    image = Image.linear_gradient("L").convert("RGB").resize((40, 30))
    sample = processor.encode_prompt([("Is Region [0] left?", "")], image, "a")
    other = replace(sample, world_pixel_values=-sample.world_pixel_values)
    logits = [pair.model(**inputs(pair.padded([s])), logits_to_keep=0).logits[0] for s in (sample, other)]
    changed = (logits[0] - logits[1]).abs().amax(-1) > 1e-6  # (T,)
    assert changed[-1]
    assert changed[sample.token_type_ids == TokenType.IMAGE].any() == (world_position == "first")


@torch.no_grad()
def test_the_loss_of_a_row_is_the_cross_entropy_of_its_answers(pair):
    for sample in pair.all:
        batch = pair.padded([sample])
        output = pair.model(**inputs(batch, labels=True), logits_to_keep=0)
        targets = sample.labels[1:]
        expected = F.cross_entropy(output.logits[0, :-1], targets, ignore_index=IGNORE_INDEX, reduction="sum")
        torch.testing.assert_close(output.loss_sum, expected, atol=1e-3, rtol=1e-6)
        assert output.num_target_tokens == int((targets != IGNORE_INDEX).sum()) > 30


@pytest.mark.parametrize("budget", [None, 700], ids=["full", "with a tail"])
def test_packed_padded_and_separate_rows_have_one_loss(pair, budget):
    total = sum(len(sample.input_ids) for sample in pair.all)
    batches = {
        "packed": [pair.packed(pair.all, budget or total)],
        "left": [pair.padded(pair.all, "left")],
        "right": [pair.padded(pair.all, "right")],
        "separate": [pair.padded([sample]) for sample in pair.all],
    }
    weight = pair.model.get_input_embeddings().weight
    losses, gradients = {}, {}
    for layout, made in batches.items():
        loss = sum(pair.model(**inputs(batch, labels=True)).loss_sum for batch in made)
        assert sum(batch.num_target_tokens for batch in made) == int(pair.samples.targets.sum())
        losses[layout] = loss.item()
        (gradients[layout],) = torch.autograd.grad(loss, weight)
    assert losses == pytest.approx(dict.fromkeys(losses, losses["separate"]), rel=1e-5)
    scale = float(gradients["separate"].abs().max())
    for gradient in gradients.values():
        torch.testing.assert_close(gradient, gradients["separate"], atol=1e-4 * scale, rtol=1e-4)
    batch = batches["packed"][0]
    merged = replace(batch, document_ids=batch.document_ids.clamp(max=0))
    mixed = pair.model(**inputs(merged, labels=True)).loss_sum.item()
    assert mixed != pytest.approx(losses["separate"], rel=1e-4)  # control: as one document it is another loss


@torch.no_grad()
def test_a_prompt_is_what_preceded_the_answer_in_training(pair):
    """Ids, types, pixels, and so the distribution of the first answer token, for every turn of every row."""
    asked = 0
    for number, sample in enumerate(pair.all):
        targets = sample.labels != IGNORE_INDEX
        starts = torch.nonzero(targets[1:] & ~targets[:-1]).flatten() + 1
        whole = pair.model(**inputs(pair.padded([sample]))).logits[0]
        for turns, start in enumerate(starts.tolist(), 1):
            prompt = pair.prompt(number, turns)
            assert torch.equal(prompt.input_ids, sample.input_ids[:start])
            assert torch.equal(prompt.token_type_ids, sample.token_type_ids[:start])
            assert torch.equal(prompt.pixel_values, sample.pixel_values)
            assert torch.equal(prompt.world_pixel_values, sample.world_pixel_values)
            first = pair.model(**inputs(pair.padded([prompt]))).logits[0, -1]
            torch.testing.assert_close(first, whole[start - 1], atol=1e-4, rtol=1e-4)
            asked += 1
    assert asked == 1 + 2 + 3


@torch.no_grad()
def test_generation_follows_the_forward_pass(pair):
    """Batched greedy answers are those of the model run on the growing sequence, one prompt at a time."""
    prompts = [pair.prompt(number, 1) for number in range(3)]
    answers = pair.generate(prompts)
    assert answers.shape == (3, NEW_TOKENS)
    for prompt, answer in zip(prompts, answers, strict=True):
        ids = prompt.input_ids[None]
        for token in answer:
            logits = pair.model(
                ids, pixel_values=prompt.pixel_values, world_pixel_values=prompt.world_pixel_values
            ).logits
            assert logits[0, -1].argmax() == token
            ids = torch.cat([ids, token.view(1, 1)], dim=1)


@torch.no_grad()
def test_the_world_of_a_row_reaches_its_answers(pair):
    batch = pair.padded([pair.all[2]])
    before = pair.model(**inputs(batch)).logits
    if not pair.world:
        assert len(batch.world_pixel_values) == 0
        return
    after = pair.model(**inputs(replace(batch, world_pixel_values=-batch.world_pixel_values))).logits
    assert (before - after)[0, batch.target_positions].abs().amax(dim=-1).min() > 1e-4
