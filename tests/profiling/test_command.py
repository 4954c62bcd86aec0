"""`theworld profile` on the tiny model: what it writes, and that the numbers are those of the model."""

from __future__ import annotations

import gzip
import json
import struct

import pytest
import yaml

from tests.profiling.conftest import STEPS, config
from theworld.cli import main
from theworld.models.theworld import TheWorld
from theworld.profiling.timing.trace import PREFIX

GROUPS = {"world_projector", "vision", "language"}


def parts(report, category: str) -> dict[str, int]:
    return {row["part"]: row["bytes"] for row in report["memory"]["breakdown"] if row["category"] == category}


def test_the_breakdown_is_the_peak_to_the_byte(report):
    """The CPU's allocator rounds nothing up, so any block that we miss, or count twice, would be seen."""
    memory = report["memory"]
    assert memory["breakdown_sum_bytes"] == memory["peak_allocated_bytes"] == sum(memory["category_bytes"].values())
    assert "rounding" not in memory["category_bytes"]
    assert memory["category_bytes"].get("other", 0) < 0.03 * memory["peak_allocated_bytes"]


def test_weights_gradients_and_moments_are_those_of_the_model(report, base):
    """The peak is at the end of the forward pass of the second micro-batch, beside the first one's gradients."""
    model = TheWorld.from_pretrained(base, world_image_size=16)
    counts = model.parameter_counts()
    assert report["parameters"] == {
        group: {"parameters": count, "trainable_parameters": count if group in GROUPS else 0, "bytes": 4 * count}
        for group, count in counts.items()
    }
    weights = parts(report, "weights")
    assert {group: weights[group] for group in counts} == {group: 4 * count for group, count in counts.items()}
    assert parts(report, "gradients") == {group: 4 * counts[group] for group in GROUPS}
    held = [sum(parts(report, category).values()) for category in ("weights", "gradients", "optimizer_state", "inputs")]
    # The batch is the first micro-batch; of the next one, which is fetched already, nothing is known yet.
    there = sum(held) - held[1]  # no gradient outlives its step
    assert held[0] + held[2] < report["memory"]["start_allocated_bytes"] <= 1.03 * there
    gradients = report["memory"]["timeline"]["bytes"]["gradients"]
    assert (gradients[-1], max(gradients)) == (0, 4 * sum(counts[group] for group in GROUPS))
    tensors = {group: sum(n.startswith(start) for n, _ in model.named_parameters()) for group, start in NAMES.items()}
    steps = {group: report["memory"]["category_bytes"]["optimizer_state"] for group in GROUPS}
    assert steps["language"] == 8 * sum(counts[group] for group in GROUPS) + 4 * sum(tensors.values())


NAMES = {
    "world_projector": "cosmos_encoder.projector",
    "vision": ("gemma.model.vision_tower", "gemma.model.multi_modal_projector"),
    "language": "gemma.model.language_model",
}


def test_activations_are_those_of_layers_that_train(report):
    """Layers of one kind keep as much as each other; the frozen encoder keeps nothing."""
    activations = parts(report, "activations")
    first, last = (activations[f"gemma.model.language_model.layers.{number}"] for number in (0, 1))
    assert 0 < last <= first  # the last one computes fewer rows
    vision = [activations[f"gemma.model.vision_tower.encoder.layers.{number}"] for number in (0, 1)]
    assert vision[0] == pytest.approx(vision[1], rel=0.2)
    assert "cosmos_encoder.vae" not in activations
    assert report["memory"]["category_bytes"]["logits"] > 0


def test_every_second_of_a_step_is_at_a_place(report):
    time = report["time"]
    phases = {place["phase"] for place in time["places"]}
    assert phases == {"forward", "backward", "optimizer", "data", "loop"}
    assert time["places_sum_seconds"] == pytest.approx(sum(place["seconds"] for place in time["places"]))
    assert time["places_over_step"] == time["places_sum_seconds"] / time["step_seconds"]
    assert 0.9 * time["placed_step_seconds"] < time["places_sum_seconds"] <= 1.0001 * time["placed_step_seconds"]
    assert len(time["step_seconds_each"]) == 2
    around = {place["part"] for place in time["places"] if place["phase"] in ("optimizer", "data")}
    assert around == {
        *("step", "clip gradients", "clear gradients"),
        *("wait for the next batch", "transfer", "plan of live rows"),
    }


def test_there_are_no_rows_of_cuda(report):
    """Absent, not zero."""
    assert not any(word in key for key in report["memory"] for word in ("asked", "reserved", "untouched"))
    assert not {"launches", "host_waits", "idle_seconds"} & report["time"].keys()
    assert not any({"kernel_seconds", "launches"} & place.keys() for place in report["time"]["places"])
    assert not any(row["is_kernel"] or "cuda_seconds" in row for row in report["operations"])
    assert "mfu_of_peak" not in report["throughput"]
    assert "cuda" not in report["machine"]


def test_rates_are_of_the_steps_without_tools(report):
    rates, seconds = report["throughput"], report["time"]["step_seconds"]
    assert rates["tokens_per_second"] == pytest.approx(rates["tokens_per_step"] / seconds)
    assert rates["timed_steps"] == 2
    assert rates["tokens_per_step"] <= 2 * 256
    assert rates["useful_flops_per_second"] == pytest.approx(rates["useful_flops_per_step"] / seconds)
    assert rates["mfu_of_measured_ceiling"] == pytest.approx(
        rates["useful_flops_per_second"] / rates["measured_ceiling_flops_per_second"]
    )
    assert len(report["loss"]) == STEPS
    assert all(0 < loss < 20 for loss in report["loss"])
    assert any(row["name"] == "aten::mm" for row in report["operations"])


def test_the_files_are_whole(profiled, report):
    text = (profiled / "report.md").read_text()
    sections = ["Summary", "Memory breakdown", "Parameters", "Time by operation", "Time by module"]
    for title in [*sections, "Forward, backward, optimizer", "Loss"]:
        assert f"\n## {title}\n" in text
    for name in ("memory", "modules", "operations"):
        head = (profiled / f"{name}.png").read_bytes()[:24]
        assert head[:8] == b"\x89PNG\r\n\x1a\n"
        assert struct.unpack(">I", head[16:20])[0] == 1160
    with gzip.open(profiled / "trace.json.gz", "rt") as file:
        names = {event["name"] for event in json.load(file)["traceEvents"] if "name" in event}
    assert f"{PREFIX}forward: cosmos_encoder.projector" in names
    assert len(list((profiled / "tensorboard").glob("*.pt.trace.json.gz"))) == 1
    assert not (profiled / "memory_snapshot.pickle").exists()
    assert not list(profiled.rglob("*.ckpt"))


def test_a_run_that_is_too_short_is_refused(base, osd, tmp_path):
    changed = config(base, osd, tmp_path / "out")
    changed["model"]["stages"]["language"]["max_steps"] = STEPS - 1
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(changed))
    with pytest.raises(SystemExit, match="found a first stage of 9 steps, expected at least the 10 that are profiled"):
        main(["profile", f"--config={tmp_path / 'config.yaml'}"])
    assert not (tmp_path / "out" / "report.json").exists()
