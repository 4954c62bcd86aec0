"""One number of world tokens: settings, processor, index, collator and model agree on it for every k, size and mode."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from tests.tiny import (
    IMAGE_SIDE,
    IMAGE_TOKENS,
    VAE_CONFIG,
    gemma_config,
    make_image_processor,
    make_model,
    make_tokenizer,
    osd_row,
    tiny_config,
    write_osd,
)
from theworld.data.indexing.build import build_index
from theworld.data.packing.collator import pack
from theworld.data.packing.plan import plan
from theworld.data.processor import TheWorldProcessor
from theworld.data.rows.osd import OSDRows
from theworld.data.samples import OSDSamples
from theworld.data.stores import FolderStore
from theworld.models.configuration import TheWorldConfig
from theworld.models.cosmos_encoder import CosmosEncoder, new_projector
from theworld.models.fusion import fuse
from theworld.models.theworld import TheWorld
from theworld.models.world_encoder import WorldEncoder
from theworld.types import TokenType
from theworld.world_tokens import num_world_tokens

TOKENIZER = make_tokenizer()


@pytest.fixture(scope="module")
def osd(tmp_path_factory) -> tuple[Path, Path]:
    return write_osd(tmp_path_factory.mktemp("rows"), [osd_row(0)])


@pytest.fixture(scope="module")
def model() -> TheWorld:
    return make_model(gemma_config=gemma_config(vocab_size=len(TOKENIZER)))


@pytest.fixture(scope="module")
def vae() -> WorldEncoder:
    return WorldEncoder.from_config(VAE_CONFIG)


def processor_of(config: TheWorldConfig) -> TheWorldProcessor:
    size, steps, budget = config.world_image_size, config.num_world_steps, config.world_tokens_per_frame
    return TheWorldProcessor(
        TOKENIZER,
        make_image_processor(IMAGE_SIDE),
        num_image_tokens=IMAGE_TOKENS,
        num_world_tokens=num_world_tokens(size, config.world_projection_mode, steps, budget),
        world_image_size=size,
    )


def samples_of(config: TheWorldConfig, osd: tuple[Path, Path], *, max_seq_length: int = 100_000) -> OSDSamples:
    rows = OSDRows(osd[0], image_folder=osd[1])
    processor = processor_of(config)
    index = build_index(rows, processor, max_seq_length=max_seq_length, name="train")
    return OSDSamples(FolderStore(index, rows_path=osd[0], image_folder=osd[1]), index=index, processor=processor)


@torch.no_grad()
@pytest.mark.parametrize(
    "settings", [{}, {"world_tokens_per_frame": 16}, {"world_projection_mode": "channel"}], ids=str
)
@pytest.mark.parametrize("size", [224, 512])
def test_all_count_the_same(model, vae, osd, size: int, settings: dict[str, object]) -> None:
    lengths = []
    for steps in range(17):
        config = tiny_config(
            gemma_config=model.config.gemma_config, world_image_size=size, num_world_steps=steps, **settings
        )
        samples = samples_of(config, osd)
        sample = samples.read(0)
        batch = pack([sample], budget=len(sample.input_ids) + 3, pad_token_id=0, step_target_tokens=1)
        branch = CosmosEncoder(
            vae, projector=new_projector(config, target_rms=1.0), image_size=size, num_world_steps=steps
        )
        model.cosmos_encoder = branch
        is_world = model.token_types(batch.input_ids)[0] == TokenType.WORLD
        latents = torch.randn(1, 16, 1 + steps, size // 8, size // 8)
        seen = {"pixel_values": batch.pixel_values, "image_features": None, "world_pixel_values": None}
        embeds, _ = fuse(model, batch.input_ids, batch.token_type_ids, **seen, world_latents=latents)
        filled = (embeds != model.get_input_embeddings()(batch.input_ids)).any(dim=-1)[0]
        counts = {
            "model": config.num_world_tokens,
            "placeholders": int((sample.input_ids == config.world_token_id).sum()),
            "index": samples.index.number("world_tokens", 0),
            "collator": int((batch.token_type_ids == TokenType.WORLD).sum()),
            "filled": int((filled & is_world).sum()),
        }
        assert set(counts.values()) == {config.num_world_tokens}, counts
        assert batch.document_lengths == (len(sample.input_ids),) == (int(samples.lengths[0]),)
        lengths.append(len(sample.input_ids))
    per_frame = 16 if settings else (size // 8) ** 2
    assert [length - lengths[0] for length in lengths] == [per_frame * steps for steps in range(17)]


def test_readme_says_what_a_frame_costs() -> None:
    section = (Path(__file__).parents[1] / "README.md").read_text().split("## World steps and token budgets")[1]
    rows = re.findall(r"^\| (?:a token a cell|`world_tokens_per_frame: (\d+)`) \|(.*)\|$", section, re.MULTILINE)
    assert len(rows) == 3
    for budget, cells in rows:
        found = [int(cell.replace(",", "")) for cell in cells.split("|")]
        assert found == [num_world_tokens(512, "spatial", k, int(budget) if budget else None) for k in (0, 4, 16)]


def test_what_is_too_long_is_refused_with_that_very_number(osd) -> None:
    config = tiny_config(world_image_size=64, num_world_steps=3)
    samples = samples_of(config, osd)
    sample = samples.read(0)
    length = len(sample.input_ids)
    assert length > 4 * 64
    with pytest.raises(ValueError, match=rf"the first turn needs {length} tokens, .*max_seq_length={length - 1}"):
        samples_of(config, osd, max_seq_length=length - 1)
    with pytest.raises(ValueError, match=f"found {length} tokens in 1 samples .*expected 1 to {length - 1} tokens"):
        pack([sample], budget=length - 1, pad_token_id=0, step_target_tokens=1)
    with pytest.raises(ValueError, match=f"sample 0 has {length} tokens, expected at most the budget of {length - 1}"):
        plan(samples.lengths, seed=0, epoch=0, budget=length - 1, micro_batches_per_step=1)
    assert len(samples_of(config, osd, max_seq_length=length)) == 1
    assert plan(samples.lengths, seed=0, epoch=0, budget=length, micro_batches_per_step=1).num_rows == 1


@pytest.mark.parametrize(("steps", "shape"), [(-1, None), (0, (0, 16)), (0, (48, 0)), (0, (-48, -8))])
def test_counts_that_cannot_be_are_refused(steps: int, shape: tuple[int, int] | None) -> None:
    with pytest.raises(
        ValueError, match=re.escape(f"world_latent_shape={shape} and num_world_steps={steps}, expected")
    ):
        num_world_tokens(64, "spatial", steps, None, shape)


@pytest.mark.parametrize(("size", "shape", "fit"), [(30, None, 24), (4, None, 8), (0, None, 8), (72, (2048, 16), 64)])
def test_a_side_that_is_no_whole_number_of_cells_is_refused_before_a_model_is_there(size, shape, fit):
    with pytest.raises(ValueError, match=rf"found world_image_size={size}, .* multiple of .*, such as {fit}$"):
        num_world_tokens(size, "spatial", 0, None, shape)
