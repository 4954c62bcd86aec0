"""A profile on a GPU, of a random model of middling size: half a billion parameters, 8192 tokens a step."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer

from tests.tiny import BOS, EOW, IMAGE, SOW, WORLD, gemma_config, randomise, tiny_config
from theworld.data.packing.collator import pack
from theworld.models.theworld import TheWorld
from theworld.profiling.callback import Profile
from theworld.profiling.memory.events import SENTINEL_BYTES
from theworld.profiling.reports.schema import Report, read_report
from theworld.profiling.watch import Plan
from theworld.training.callbacks.stage_schedule import StageSchedule
from theworld.training.module import TheWorldModule
from theworld.training.stages import LearningRates, Stage
from theworld.types import IGNORE_INDEX, Sample

pytestmark = pytest.mark.gpu

PLAN = {"warmup_steps": 4, "active_steps": 6, "traced_steps": 2}
STEPS = Plan(**PLAN).total
LENGTH, SAMPLES, TARGETS = 4096, 2, 512
SIZE = {
    "vocab_size": 32768,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 7,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "query_pre_attn_scalar": 256,
    "sliding_window": 1024,
}


class Rows:
    """The same row in every step."""

    def __init__(self, batch) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return STEPS

    def __iter__(self):
        return iter([self.batch] * STEPS)


def make_row(model: TheWorld):
    samples = []
    for number in range(SAMPLES):
        generator = torch.Generator().manual_seed(number)
        image, world = torch.full((4,), IMAGE), torch.full((4,), WORLD)
        words = torch.randint(100, 30000, (LENGTH - 11,), generator=generator)
        ids = torch.cat([torch.tensor([BOS, SOW]), world, torch.tensor([EOW]), image, words])
        kept = torch.arange(LENGTH) >= LENGTH - TARGETS
        samples.append(
            Sample(
                id=str(number),
                input_ids=ids,
                labels=torch.where(kept, ids, IGNORE_INDEX),
                token_type_ids=model.token_types(ids[None].to(model.device))[0].cpu(),
                pixel_values=torch.randn(1, 3, 16, 16, generator=generator),
                world_pixel_values=torch.rand(1, 3, 16, 16, generator=generator),
            )
        )
    batch = pack(samples, budget=LENGTH * SAMPLES, pad_token_id=0, step_target_tokens=TARGETS * SAMPLES)
    return batch.pin_memory()


def profile_stage(folder: Path, optimizer: str, **rates: float) -> Report:
    """Profile a stage in which these groups train, with compiled layers and flash attention."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model = TheWorld(tiny_config(gemma_config=gemma_config(**SIZE))).train()
    torch.set_default_dtype(torch.float32)
    randomise(model)
    stage = Stage(learning_rates=LearningRates(**rates), max_steps=STEPS)
    module = TheWorldModule(
        base="theworld-tiny",
        stages={"stage": stage},
        attention_backend="flash",
        compile_layers=True,
        optimizer=optimizer,
    )
    module.model = model
    model.attention_backend = "flash"
    trainer = Trainer(
        accelerator="gpu",
        devices=1,
        precision="bf16-mixed",
        max_epochs=-1,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        default_root_dir=folder,
        callbacks=[Profile(output=str(folder), **PLAN), StageSchedule()],
    )
    trainer.fit(module, train_dataloaders=Rows(make_row(model)))
    return read_report(folder)


@pytest.fixture(scope="module", params=["projection", "language"])
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Report]:
    """A stage's name, its folder and its report."""
    folder = tmp_path_factory.mktemp(request.param)
    rates = {"world_projector": 1e-4}
    if request.param == "language":
        rates |= {"language": 1e-5}
    return request.param, folder, profile_stage(folder, "adamw", **rates)


def test_the_breakdown_is_the_peak(found):
    """To the byte, with what the allocator rounds up. What it was asked for, it counts as well, on its own."""
    memory = found[2]["memory"]
    peak, sizes = memory["peak_allocated_bytes"], memory["category_bytes"]
    assert memory["breakdown_sum_bytes"] == peak
    asked = peak - sizes.get("rounding", 0)
    assert 0 <= memory["peak_asked_bytes"] - asked <= SENTINEL_BYTES  # a mark may fall on the peak
    assert sizes.get("rounding", 0) <= 0.03 * peak
    assert sizes.get("other", 0) <= 0.03 * peak
    assert peak == pytest.approx(memory["untouched_peak_allocated_bytes"], rel=0.02)
    assert memory["peak_reserved_bytes"] >= peak


def test_weights_and_state_are_those_of_the_model(found):
    stage, _, report = found
    rows = {(row["category"], row["part"]): row["bytes"] for row in report["memory"]["breakdown"]}
    for group, counts in report["parameters"].items():
        assert rows["weights", group] == counts["bytes"]
    trained = report["parameters"]["language" if stage == "language" else "world_projector"]
    group = "language" if stage == "language" else "world_projector"
    assert trained["trainable_parameters"] == trained["parameters"]
    moments = 8 * trained["parameters"]  # two in float32, and a step a tensor
    assert moments <= rows["optimizer_state", group] <= 1.01 * moments
    assert rows["activations", "gemma.model.language_model.layers.0"] > 0
    assert any(category == "logits" for category, _ in rows)


def test_time_by_module_is_the_step(found):
    time = found[2]["time"]
    assert time["places_over_step"] == pytest.approx(1.0, abs=0.03)
    kernels = sum(place.get("kernel_seconds", 0.0) for place in time["places"])
    assert kernels + time["idle_seconds"] >= 0.999 * time["step_seconds"]
    assert kernels <= 1.05 * time["step_seconds"]  # what two kernels share is counted once
    layers = [place for place in time["places"] if ".language_model.layers." in place["part"]]
    assert len(layers) == 2 * SIZE["num_hidden_layers"]  # forward and backward
    assert all(place["launches"] > 0 and place["kernel_seconds"] > 0 for place in layers)
    assert sum(place["seconds"] for place in layers) > 0.5 * time["step_seconds"]
    assert time["launches"] > 0
    assert time["host_waits"] <= 5


def test_rates_and_files_are_there(found):
    _, folder, report = found
    rates = report["throughput"]
    assert 0 < rates["mfu_of_measured_ceiling"] < 1
    assert rates["tokens_per_step"] == LENGTH * SAMPLES
    assert any(row["is_kernel"] for row in report["operations"])
    assert not any(row["is_kernel"] and row["name"].startswith("Optimizer") for row in report["operations"])
    assert (folder / "memory_snapshot.pickle").stat().st_size > 0
    with gzip.open(folder / "trace.json.gz", "rt") as file:
        assert any(event.get("cat") == "kernel" for event in json.load(file)["traceEvents"])
    assert len(report["loss"]) == STEPS
