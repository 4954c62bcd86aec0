"""A planned row counts the tokens that index, collator and model count, and refuses what they refuse, by the number."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.tiny import (
    IMAGE_SIDE,
    IMAGE_TOKENS,
    make_image_processor,
    make_tokenizer,
    osd_row,
    tiny_config,
    write_osd,
)
from theworld.data.indexing.build import build_index
from theworld.data.indexing.index import Index
from theworld.data.packing.collator import pack
from theworld.data.processor import TheWorldProcessor
from theworld.data.rows.osd import OSDRows
from theworld.models.configuration import TheWorldConfig
from theworld.profiling.plan.data_rows import indexed_rows, typical_rows
from theworld.profiling.plan.typical_row import (
    CachedTowers,
    SampleLength,
    packed_row,
    placeholder_tokens,
    typical_samples,
)
from theworld.types import PADDING_DOCUMENT, TokenType
from theworld.world_tokens import num_world_tokens

TOKENIZER = make_tokenizer()


@pytest.fixture(scope="module")
def osd(tmp_path_factory) -> tuple[Path, Path]:
    return write_osd(tmp_path_factory.mktemp("rows"), [osd_row(number, turns=1 + number % 3) for number in range(6)])


def index_of(config: TheWorldConfig, osd: tuple[Path, Path], *, max_seq_length: int = 100_000) -> Index:
    size, steps = config.world_image_size, config.num_world_steps
    processor = TheWorldProcessor(
        TOKENIZER,
        make_image_processor(IMAGE_SIDE),
        num_image_tokens=IMAGE_TOKENS,
        num_world_tokens=num_world_tokens(size, config.world_projection_mode, steps),
        world_image_size=size,
    )
    rows = OSDRows(osd[0], image_folder=osd[1])
    return build_index(rows, processor, max_seq_length=max_seq_length, name="train")


@pytest.mark.parametrize("size", [224, 512])
def test_world_tokens_are_those_of_the_index_for_every_number_of_steps(osd, size: int) -> None:
    one_row = osd
    lengths = {}
    for steps in range(17):
        config = tiny_config(world_image_size=size, num_world_steps=steps)
        if steps in (0, 16):
            index = index_of(config, one_row)
            lengths[steps] = int(index.lengths[0])
            assert index.number("world_tokens", 0) == config.num_world_tokens
        length = placeholder_tokens(config) + 50
        cached = CachedTowers(world_latents=True)
        batch = packed_row(config, [SampleLength(length, 20)], token_budget=length + 4, cached=cached)
        world = int((batch.token_type_ids == TokenType.WORLD).sum())
        assert world == config.num_world_tokens == (size // 8) ** 2 * (1 + steps)
        assert batch.world_latents is not None
        assert batch.world_latents.shape == (1, 16, 1 + steps, size // 8, size // 8)
        assert int((batch.document_ids != PADDING_DOCUMENT).sum()) == length == batch.document_lengths[0]
    assert lengths[16] - lengths[0] == 16 * (size // 8) ** 2


def test_a_row_is_what_its_samples_say(osd) -> None:
    config = tiny_config()
    fixed = placeholder_tokens(config)
    samples = [SampleLength(fixed + 30, 10), SampleLength(fixed + 50, 20)]
    batch = packed_row(config, samples, token_budget=2 * fixed + 100, cached=CachedTowers())
    assert batch.input_ids.shape == (1, 2 * fixed + 100)
    assert batch.num_target_tokens == 30 == batch.step_target_tokens
    assert len(batch.pixel_values) == len(batch.world_pixel_values) == 2
    assert int((batch.token_type_ids == TokenType.IMAGE).sum()) == 2 * IMAGE_TOKENS
    assert (batch.input_ids == config.gemma_config.image_token_id).sum() == 2 * IMAGE_TOKENS
    features = packed_row(config, samples, token_budget=2 * fixed + 100, cached=CachedTowers(True, True))
    assert len(features.pixel_values) == len(features.world_pixel_values) == 0
    assert features.image_features is not None
    assert features.image_features.shape == (2, IMAGE_TOKENS, 16)


def test_typical_samples_fill_the_row() -> None:
    config = tiny_config(world_image_size=128)  # 256 world tokens
    fixed = placeholder_tokens(config)
    assert fixed == 256 + 2 + IMAGE_TOKENS
    found = typical_samples(config, token_budget=3 * (fixed + 40) + 2, max_seq_length=fixed + 45, text_tokens=40)
    assert found == (SampleLength(fixed + 40, 20),) * 3
    (one,) = typical_samples(config, token_budget=fixed + 20, max_seq_length=fixed + 20)
    assert one.tokens == fixed + 20


def test_a_sample_that_fits_no_row_is_refused_with_the_collators_number() -> None:
    config = tiny_config(world_image_size=64, num_world_steps=3)
    shortest = placeholder_tokens(config) + 16
    with pytest.raises(ValueError, match=rf"\(256 world tokens, .* a sample of {shortest} tokens, the shortest, is"):
        typical_rows(config, max_seq_length=shortest - 1, token_budget=10_000)
    with pytest.raises(ValueError, match=f"data.token_budget={shortest - 1}: a sample of {shortest} tokens"):
        typical_rows(config, max_seq_length=10_000, token_budget=shortest - 1)
    assert typical_samples(config, token_budget=shortest, max_seq_length=shortest)[0].tokens == shortest
    batch = packed_row(
        config, [SampleLength(shortest, 8)], token_budget=shortest, cached=CachedTowers(world_latents=True)
    )
    assert batch.num_tokens == shortest
    with pytest.raises(ValueError, match=f"found {shortest} tokens in 1 samples .*expected 1 to {shortest - 1} tokens"):
        packed_row(
            config, [SampleLength(shortest, 8)], token_budget=shortest - 1, cached=CachedTowers(world_latents=True)
        )


def test_rows_of_an_index_are_its_fullest(osd, tmp_path: Path) -> None:
    config = tiny_config()
    index = index_of(config, osd)
    index.write(tmp_path / "index.parquet")
    lengths, targets = index.lengths, index.targets
    budget = int(lengths.max() + lengths.min())
    samples_of, note = indexed_rows([tmp_path / "index.parquet"], max_images=None, seed=0, token_budget=budget)
    samples = samples_of(budget)
    assert sum(sample.tokens for sample in samples) <= budget
    assert {sample.tokens for sample in samples} <= set(lengths.tolist())
    assert sum(sample.images for sample in samples) == len(samples) >= 2
    assert sum(sample.targets for sample in samples) >= targets.max()
    assert f"the fullest row of {len(index)} indexed samples" in note
    batch = packed_row(config, samples, token_budget=budget, cached=CachedTowers())
    assert torch.equal(torch.tensor(batch.document_lengths), torch.tensor([s.tokens for s in samples]))
    assert pack.__module__ == "theworld.data.packing.collator"
