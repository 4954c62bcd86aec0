"""The controls of `theworld audit`: train a tiny model on each, audit it, disconnect it, and audit it again.

    python -m experiments.audit_controls.run

Every step is a command of `theworld`; what is there is not made again. The table of the README comes from what this
writes to `results/controls.json`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

HERE = Path(__file__).parent
OUTPUT = Path("outputs/audit_controls")
PAIRS = OUTPUT / "pairs"
NUM_TEST = 1200
"""So many that the interval of a drop that is none fits into the margin, though a sixth of the answers change."""

BLANK = {"world_only": "vision", "image_only": "world"}
EXPECTED = {"world_only": ("relies", "no reliance shown"), "image_only": ("no reliance shown", "relies")}
"""Control → what the audit must say of the world, and of the image."""

KEPT = ("n", "accuracy", "difference", "difference_interval", "p_holm", "answers_changed", "inputs_changed")
"""Of each arm, in `results/controls.json`."""


def main() -> None:
    facts: dict[str, object] = {"torch": torch.__version__, "controls": {}, "disconnected": {}}
    if not PAIRS.exists():
        theworld("data", "pairs", f"--output={PAIRS}", f"--num_test={NUM_TEST}")
    for control, blank in BLANK.items():
        seconds = fit(control)
        code, _ = audit(export(control), control, blank)
        found = json.loads((OUTPUT / "audits" / control / "audit.json").read_text())
        verdict = found["verdict"]
        assert code == 0, f"{control}: the audit ended with {code}, expected 0"
        said = verdict["world"], verdict["image"]
        assert said == EXPECTED[control], f"{control}: found {said}, expected {EXPECTED[control]}"
        arms = {arm: {key: result[key] for key in KEPT} for arm, result in found["arms"].items()}
        facts["controls"][control] = {
            "fit_seconds": seconds,
            "arms": arms,
            "verdict": verdict["sentences"],
            "world_varying": found["root_mean_square"]["world_varying"],
        }
    for name, change in (("projector of zeros", zero_projector), ("enable_world off", switch_off)):
        broken = OUTPUT / "disconnected" / name.replace(" ", "_")
        shutil.rmtree(broken, ignore_errors=True)
        shutil.copytree(export("world_only"), broken)
        change(broken)
        code, message = audit(broken, broken.name, "vision", split="val")  # a few questions show it
        assert code == 1, f"{name}: the audit ended with {code}, expected 1"
        facts["disconnected"][name] = {"exit_status": code, "message": message}
        print(f"{name}: exit status {code}: {message}")
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    written = results / "controls.json"
    if written.exists():  # how long it took the first time, where nothing was trained this time
        before = json.loads(written.read_text())["controls"]
        for control, found in facts["controls"].items():
            found["fit_seconds"] = found["fit_seconds"] or before[control]["fit_seconds"]
    written.write_text(json.dumps(facts, indent=1) + "\n")
    for control in BLANK:
        shutil.copy(OUTPUT / "audits" / control / "audit.png", results / f"{control}.png")


def theworld(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "theworld.cli", *words], check=True, text=True)


def export(control: str) -> Path:
    return OUTPUT / control / "export" / "projection"


def fit(control: str) -> float | None:
    """Seconds it took; None if it was there."""
    if export(control).exists():
        return None
    start = time.perf_counter()
    configs = ["configs/tiny.yaml", str(HERE / "pairs.yaml"), str(HERE / f"{control}.yaml")]
    theworld("fit", *(f"--config={config}" for config in configs))
    return round(time.perf_counter() - start, 1)


def audit(model: Path, name: str, blank: str, *, split: str = "test") -> tuple[int, str]:
    """Exit status and last message of `theworld audit`."""
    command = ["audit", str(model), f"--rows={PAIRS / f'{split}.json'}", f"--images={PAIRS / split}"]
    command += [f"--output={OUTPUT / 'audits' / name}", "--max_new_tokens=8", f"--blank_image={blank}"]
    done = subprocess.run([sys.executable, "-m", "theworld.cli", *command], text=True, stderr=subprocess.PIPE)
    lines = [line for line in done.stderr.splitlines() if line.startswith("theworld audit: ")]
    return done.returncode, lines[-1] if lines else ""


def zero_projector(folder: Path) -> None:
    """As a projector that was never written, or overwritten."""
    weights = load_file(folder / "model.safetensors")
    for name in weights:
        if name.startswith("cosmos_encoder.projector.layers."):
            weights[name] = torch.zeros_like(weights[name])
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def switch_off(folder: Path) -> None:
    """As an export of a run with enable_world=False."""
    config = json.loads((folder / "config.json").read_text())
    config["enable_world"] = False
    (folder / "config.json").write_text(json.dumps(config))


if __name__ == "__main__":
    main()
