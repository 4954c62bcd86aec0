"""The language stage's loss over fifty steps: bfloat16 weights with stochastic rounding against float32 masters.

    python experiments/speed/loss_curves.py --output curves.json      # random weights at true dimensions; one H200
    python experiments/speed/loss_curves.py --draw curves.json        # curves.png beside it; no GPU

Both start from the same weights and see the same eight samples in turn, four rows of two. Their curves have to agree,
and both have to fall, or agreement would mean nothing. The float32 masters run with every layer recomputed, to fit.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from clock import Clock
from lightning.pytorch import Callback, Trainer
from rows import TARGETS, TEXT, packed_row, random_model, samples_of
from step import VARIANTS, as_loaded, run_ours

from theworld.types import Batch

ROWS = 4


class Losses(Callback):
    """The loss of every step, given to `write` at the end, before the trainer takes its time to move the model."""

    def __init__(self, write: Callable[[list[float]], None]) -> None:
        self.losses: list[torch.Tensor] = []
        self.write = write

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int) -> None:
        self.losses.append(outputs["loss"].detach().clone())

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        self.write([loss.item() for loss in self.losses])


def draw(results: dict[str, Any], path: Path) -> None:
    """Losses above; below, how far the first curve is from the second, as means over one pass of the rows."""
    from matplotlib import pyplot as plt  # which the machine that measures may lack

    curves = {name: one["losses"] for name, one in results.items() if isinstance(one, dict)}
    figure, (above, below) = plt.subplots(2, 1, figsize=(8, 6), sharex=True, height_ratios=[2, 1])
    for (name, losses), style in zip(curves.items(), ("-", "--"), strict=True):
        above.plot(range(1, len(losses) + 1), losses, style, label=results[name]["what"])
    above.set_ylabel("loss (nats a token)")
    above.legend()
    first, second = (by_pass(losses) for losses in curves.values())
    middles = [ROWS * number + (ROWS + 1) / 2 for number in range(len(first))]
    below.plot(middles, [100 * (a / b - 1) for a, b in zip(first, second, strict=True)], "o-", color="black")
    below.axhline(0, color="grey", linewidth=0.8)
    below.set(xlabel="optimizer step", ylabel="difference (%)\nof the mean of four steps")
    figure.suptitle(f"Language stage, random weights at true dimensions ({results['card']})", fontsize=10)
    figure.tight_layout()
    figure.savefig(path, dpi=130)


def by_pass(losses: list[float]) -> list[float]:
    """Means over each whole pass of the rows."""
    return [sum(losses[i : i + ROWS]) / ROWS for i in range(0, len(losses) - ROWS + 1, ROWS)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", nargs="+", default=["language", "language_masters"])
    parser.add_argument("--output", type=Path, default=Path("curves.json"))
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--draw", type=Path, help="draw these results in place of measuring")
    arguments = parser.parse_args()
    if arguments.draw is not None:
        draw(json.loads(arguments.draw.read_text()), arguments.draw.with_suffix(".png"))
        return
    model = random_model(enable_world=True)
    kept = {name: parameter.detach().cpu() for name, parameter in model.named_parameters()}
    samples = [samples_of(model, text=TEXT[True], targets=TARGETS, seed=seed) for seed in range(ROWS)]
    rows = [packed_row(model, pair, cached=True) for pair in samples]
    results: dict[str, Any] = {"card": torch.cuda.get_device_name(), "torch": torch.__version__}
    for name in arguments.variants:
        as_loaded(model, kept)
        clock = Clock(arguments.steps - 5)

        def write(losses: list[float], name: str = name, clock: Clock = clock) -> None:
            results[name] = clock.result() | {"what": VARIANTS[name].what, "losses": losses}
            arguments.output.write_text(json.dumps(results, indent=1) + "\n")
            print(name, results[name], flush=True)

        run_ours(VARIANTS[name], model, clock, rows, Losses(write))


if __name__ == "__main__":
    main()
