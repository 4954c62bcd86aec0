"""The plan of every configuration, before it is measured; on any machine.

python -m experiments.planning.predict --output experiments/planning/predicted.json
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
import transformers

from experiments.planning.configurations import CONFIGURATIONS, STAGE, chosen
from theworld.profiling.plan.calibration import MEASURED_ON
from theworld.profiling.plan.prediction import Planner
from theworld.profiling.plan.report import memory_data


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configurations", nargs="+", choices=[*CONFIGURATIONS])
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    planner = Planner()
    results: dict[str, Any] = {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "calibrated_on": MEASURED_ON,
        "configurations": {},
    }
    for name, one in chosen(arguments.configurations).items():
        started, run = time.perf_counter(), one.run(tiny=arguments.tiny)
        planner.forget_answers()  # one configuration's stage is called as another's
        memory = planner.memory(run, STAGE, one.choices(run.config, tiny=arguments.tiny))
        found = memory_data(memory) | {"seconds_to_plan": time.perf_counter() - started}
        results["configurations"][name] = found
        print(f"{name}: {found['allocated_gib']:.2f} GiB, {found['seconds_to_plan']:.0f} s to plan", flush=True)
        arguments.output.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
