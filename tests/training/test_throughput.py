"""What is logged and said about speed, by a clock that we turn and a card whose peaks we choose."""

from __future__ import annotations

import re

import pytest
import torch
from lightning.pytorch import Callback

from tests.training.conftest import one_stage
from theworld.models.flops import Geometry, elementwise_bytes, useful_flops
from theworld.training.callbacks import throughput
from theworld.training.callbacks.throughput import Throughput
from theworld.training.cards import Card, card_named, card_of
from theworld.types import PADDING_DOCUMENT

CARD = Card(name="Test Card", flops=1e9, bandwidth=1e8)


class Seen(Callback):
    """What every micro-batch held, read off its tensors, and in which micro-batches what was logged."""

    def __init__(self) -> None:
        self.geometries: list[Geometry] = []
        self.capacity = 0
        self.logged: list[int] = []
        self._before: dict[str, float] = {}

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        ids = batch.document_ids[batch.document_ids != PADDING_DOCUMENT]
        self.capacity = batch.document_ids.numel()
        self.geometries.append(
            Geometry(
                document_lengths=tuple(torch.bincount(ids).tolist()),
                targets=int((batch.labels != -100).sum()),
                images=len(batch.pixel_values),
                frames=len(batch.world_pixel_values),
                live_images=len(batch.pixel_values),
                live_frames=len(batch.world_pixel_values),
                live_rows=tuple(len(level.rows) for level in batch.live_rows.levels)
                + batch.live_rows.target_rows.shape,
            )
        )
        now = {n: float(v) for n, v in trainer.callback_metrics.items() if n.startswith("throughput/")}
        if now != self._before:
            self.logged.append(trainer.global_step)
        self._before = now


@pytest.fixture
def fit(make_module, make_data, make_trainer, monkeypatch):
    """A run whose clock goes on by two seconds at each look; what it saw, what it logged, the model's config."""

    def run(stages, *, card=None, accumulate=1, **changes):
        clock = iter(range(0, 1000, 2))
        monkeypatch.setattr(throughput.time, "perf_counter", lambda: float(next(clock)))
        if card is not None:
            monkeypatch.setattr(throughput, "card_of", lambda device: card)
        seen = Seen()
        trainer = make_trainer(Throughput(), seen, accumulate_grad_batches=accumulate, **changes)
        module = make_module(stages=stages)
        trainer.fit(module, datamodule=make_data(micro_batches_per_step=accumulate))
        logged = {n: float(v) for n, v in trainer.callback_metrics.items() if n.startswith("throughput/")}
        return seen, logged, module.world.config

    return run


def test_rates_count_what_is_not_padding(fit, capsys):
    """Five steps of two micro-batches, logged every second: the last interval is steps 3 and 4."""
    seen, logged, _ = fit(one_stage(5, world_projector=1e-3), accumulate=2, log_every_n_steps=2)
    interval = seen.geometries[4:8]
    tokens = sum(sum(geometry.document_lengths) for geometry in interval)
    assert len(seen.geometries) == 10
    assert seen.logged == [2, 4]
    assert logged == {
        "throughput/tokens_per_second": tokens / 2,
        "throughput/target_tokens_per_second": sum(geometry.targets for geometry in interval) / 2,
        "throughput/samples_per_second": sum(len(geometry.document_lengths) for geometry in interval) / 2,
        "throughput/fill": pytest.approx(tokens / (4 * seen.capacity)),
    }
    assert capsys.readouterr().out.count("the peak of 'cpu' is not known") == 1


def test_mfu_and_floor_are_those_of_the_interval(fit, capsys):
    stages = one_stage(5, world_projector=1e-3)
    seen, logged, config = fit(stages, card=CARD, log_every_n_steps=2)
    work = [useful_flops(config, geometry, {"world_projector"}).total for geometry in seen.geometries]
    moved = [elementwise_bytes(config, geometry, {"world_projector"}) for geometry in seen.geometries]
    assert logged["throughput/mfu"] == pytest.approx(sum(work[2:4]) / 2 / 1e9)
    assert logged["throughput/floor_ratio"] == pytest.approx(2 / (sum(work[2:4]) / 1e9 + sum(moved[2:4]) / 1e8))
    other = [useful_flops(config, geometry, {"language"}).total for geometry in seen.geometries]
    assert logged["throughput/mfu"] != pytest.approx(sum(other[2:4]) / 2 / 1e9)  # control: what trains counts

    printed = capsys.readouterr().out
    assert printed.count("first step: 2.0 s (compilation included)") == 1
    first, whole = re.findall(r"^useful .*$", printed, flags=re.MULTILINE)
    share = work[1] / 2 / 1e9
    assert first.startswith(
        f"useful {work[1] / 1e12:.4g} TFLOP a step (only), 2 s: {share:.0%} of the peak of Test Card"
    )
    assert whole.startswith(f"useful {sum(work[1:4]) / 3 / 1e12:.4g} TFLOP a step (only), 1.33 s: ")
    assert whole.endswith("x the floor")


def test_every_stage_counts_without_its_first_step(fit, stages, capsys):
    """Stages of two, two and three steps, which end at 2, 4 and 7."""
    seen, _, config = fit(stages)
    assert seen.logged == [2, 4, 6, 7]
    lines = re.findall(r"^useful (\S+) TFLOP a step \((\w+)\)", capsys.readouterr().out, flags=re.MULTILINE)
    names = ["projection", "projection", "vision", "language"]  # the first interval, then the stages
    assert [name for _, name in lines] == names
    trained = ({"world_projector"}, {"world_projector", "vision"}, {"world_projector", "language"})
    of_stages = [
        [useful_flops(config, seen.geometries[step], groups).total for step in steps]
        for groups, steps in zip(trained, ([1], [3], [5, 6]), strict=True)
    ]
    expected = [f"{sum(work) / len(work) / 1e12:.4g}" for work in of_stages]
    assert [work for work, _ in lines] == [expected[0], *expected]


def test_validation_is_not_in_an_interval(fit):
    """Validation after every second step: the interval that it cuts is forgotten, and its step with it."""
    changes = {"limit_val_batches": 1, "check_val_every_n_epoch": None, "val_check_interval": 2, "log_every_n_steps": 3}
    _, logged, _ = fit(one_stage(7, world_projector=1e-3), **changes)
    alone, whole, _ = fit(one_stage(7, world_projector=1e-3), log_every_n_steps=3)
    tokens = [sum(geometry.document_lengths) for geometry in alone.geometries]
    assert whole["throughput/tokens_per_second"] == sum(tokens[3:6]) / 2
    assert logged["throughput/tokens_per_second"] == sum(tokens[4:6]) / 2


def test_cards_are_known_by_their_whole_names():
    h100 = card_named("NVIDIA H100 80GB HBM3")
    assert (h100.flops, h100.bandwidth) == (989.4e12, 3.35e12)
    assert card_named("NVIDIA H200").bandwidth == 4.8e12
    assert card_named("NVIDIA H100 80GB HBM3 MIG 1g.10gb") is None
    assert card_of(torch.device("cpu")) is None
    assert h100.floor_seconds(flops=989.4e12, bytes=6.7e12) == pytest.approx(1 + 2)
