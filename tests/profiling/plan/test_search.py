"""What is proposed is the first way that fits, in an order that says what is given up first."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.profiling.plan.steps import module_of
from tests.tiny import tiny_config
from theworld.profiling.plan import calibration
from theworld.profiling.plan.calibration import CONTEXT_BYTES
from theworld.profiling.plan.choices import Choices, possible_choices
from theworld.profiling.plan.live_memory import Peak
from theworld.profiling.plan.named_cards import find_card
from theworld.profiling.plan.prediction import BLOCKS, CUBLAS, Planner, Run, StageMemory
from theworld.profiling.plan.report import described, refusal
from theworld.profiling.plan.search import Search
from theworld.profiling.plan.several_gpus import DividedSizes, with_ddp, with_fsdp2
from theworld.profiling.plan.training_step import GRADIENTS, OPTIMIZER, StepMemory
from theworld.profiling.plan.typical_row import SampleLength

GB = calibration.GB
AS_IS = Choices(token_budget=3072, recompute="none", optimizer="adamw", low_bit_base=False)


class Formula(Planner):
    """A planner of a model whose memory is a formula: 8 GB of weights and 0.01 GB a token that a layer keeps."""

    def memory(self, run: Run, name: str, choices: Choices) -> StageMemory:
        layers = int(0.01 * GB * choices.token_budget * {"none": 1, "selective": 0.5, "full": 0.1}[choices.recompute])
        weights = 5 * GB if choices.low_bit_base else 8 * GB
        parts = {"weights: language": weights, "activations: decoder layers": layers}
        total = weights + layers
        return StageMemory(
            choices=choices,
            peak=Peak(total, parts, "forward"),
            phase_bytes={"forward": total},
            between_steps_bytes=weights,
            allocated_bytes=total,
            needed_bytes=total,
        )


def search_of(rates: dict[str, float]) -> Search:
    run = Run(
        module=module_of(rates),
        config=tiny_config(),
        samples_of=lambda budget: (SampleLength(1000, 10),) * (budget // 1000),
    )
    return Search(Formula(), run, "stage", AS_IS, max_seq_length=500)


@pytest.mark.parametrize(
    ("memory_gb", "budget", "recompute", "low_bit"),
    [
        (40, 3072, "none", False),
        (30, 2048, "none", False),
        (19, 1024, "none", False),
        (18, 1024, "selective", False),
        (12, 3072, "full", False),
        (9.5, 1024, "full", False),
        (9, 3072, "full", True),
    ],
)
def test_the_first_that_fits_is_proposed(memory_gb, budget, recompute, low_bit) -> None:
    seen: list[StageMemory] = []
    found = search_of({"world_projector": 1e-3}).find(memory_gb, progress=seen.append)
    assert found.best is not None
    assert found.best.choices == replace(AS_IS, token_budget=budget, recompute=recompute, low_bit_base=low_bit)
    assert found.best.needed_bytes <= memory_gb * GB
    assert tuple(seen) == found.simulated
    assert seen[-1] == found.best
    flags = []
    if recompute != "none":
        flags.append(f"--model.stages.stage.recompute={recompute}")
    if low_bit:
        flags.append("--model.low_bit_base=true")
    if budget != 3072:
        flags.append(f"--data.token_budget={budget}")
    assert list(found.flags) == flags


def test_nothing_fits_and_the_message_says_so() -> None:
    found = search_of({"world_projector": 1e-3}).find(2, progress=lambda _: None)
    assert found.best is None
    message = refusal(found.simulated[0], "stage", found)
    assert "'stage' as configured needs 38.7 GB" in message
    assert "expected at most 2 GB; no way to run it that is known here fits" in message
    fits = search_of({"world_projector": 1e-3}).find(12, progress=lambda _: None)
    assert refusal(fits.simulated[0], "stage", fits).endswith("add --model.stages.stage.recompute=full")


def test_what_trains_decides_what_may_be_given_up() -> None:
    budgets = [3072, 1024]
    frozen = possible_choices(AS_IS, budgets=budgets, trained=["world_projector"], ever_trained=["world_projector"])
    assert {c.low_bit_base for c in frozen} == {False, True}
    assert {(c.gpus, c.optimizer) for c in frozen} == {(1, "adamw")}
    trained = possible_choices(AS_IS, budgets=budgets, trained=["language"], ever_trained=["language"])
    assert {c.low_bit_base for c in trained} == {False}
    assert {c.gpus for c in trained} == {1, 2, 4, 8}
    assert [c.optimizer for c in trained if c.gpus == 1][:1] == ["adamw"]
    assert not [c for c in trained if c.strategy == "fsdp2" and c.optimizer == "adamw_8bit"]  # it refuses them
    assert trained[0] == frozen[0] == AS_IS


def test_flags_of_several_gpus() -> None:
    eight = replace(AS_IS, strategy="fsdp2", gpus=8, optimizer="adamw_bf16")
    assert eight.flags(AS_IS, "language", micro_batches=16) == [
        "--model.optimizer=adamw_bf16",
        "--trainer.devices=8",
        "--trainer.accumulate_grad_batches=2",
        "--trainer.strategy=theworld.training.parallel.strategy.FullySharded",
    ]
    assert described(eight) == "3,072 tokens a row, recompute none, adamw_bf16, fsdp2 on 8 GPUs"


def test_choices_change_a_copy_of_the_module() -> None:
    module = module_of({"world_projector": 1e-3})
    changed = replace(AS_IS, recompute="full", low_bit_base=True).apply(module)
    assert [stage.recompute for stage in changed.schedule.stages] == ["full"]
    assert changed.low_bit_base
    assert [stage.recompute for stage in module.schedule.stages] == ["none"]
    assert not module.low_bit_base
    changed.model = module_of({"world_projector": 1e-3})
    assert module.model is None


def test_breakdown_sums_to_what_is_allocated_and_need_is_more() -> None:
    peak = Peak(10 * GB, {"weights": 6 * GB, "activations": 4 * GB}, "forward")
    allocated = calibration.allocated_bytes(peak.bytes)
    needed = calibration.needed_bytes(allocated, gpus=1)
    memory = StageMemory(
        choices=AS_IS,
        peak=peak,
        phase_bytes={},
        between_steps_bytes=0,
        allocated_bytes=allocated,
        needed_bytes=needed,
    )
    assert sum(memory.breakdown.values()) == allocated
    assert {BLOCKS, CUBLAS} < set(memory.breakdown)
    assert needed == allocated + round(0.04 * allocated) + CONTEXT_BYTES
    assert calibration.needed_bytes(allocated, gpus=2) == needed + calibration.NCCL_BYTES


def test_several_gpus_hold_their_part() -> None:
    parts = {"weights: language": 200, GRADIENTS: 200, OPTIMIZER: 400, "activations: decoder layers": 1000}
    one = StepMemory({p: Peak(1800, parts, p) for p in ("forward", "backward")}, 600, 200)
    sizes = DividedSizes(layer=10, rest=20, layers=8, trained=100)
    assert sizes.divided == 100
    found = with_fsdp2(one, sizes, gpus=4, masters=True, frozen_bytes=7)
    static = 100 + 100 + 200 + 7  # float32 weights, gradients, two moments, of a hundred parameters over four
    gathered = 2 * (20 + 2 * 10)
    assert found.peaks["forward"].bytes == static + gathered + 1000
    assert found.peaks["backward"].bytes == static + gathered + 1000 + 6 * 10
    assert found.peaks["end of backward"].bytes == static + gathered + 7 * 20
    assert all(sum(peak.categories.values()) == peak.bytes for peak in found.peaks.values())
    assert with_fsdp2(one, sizes, gpus=8, masters=True, frozen_bytes=7).peak.bytes < found.peak.bytes
    ddp = with_ddp(one)
    assert ddp.peak.bytes == one.peak.bytes + 200


def test_cards_are_found_by_short_and_full_names() -> None:
    card, gigabytes = find_card("RTX4090")
    assert (card.name, gigabytes) == ("NVIDIA GeForce RTX 4090", 24)
    assert find_card("NVIDIA H200") == find_card("h200")
    with pytest.raises(ValueError, match="found card 'tpu', expected one of h200, .*--memory_gb"):
        find_card("tpu")
