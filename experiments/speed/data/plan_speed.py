"""How long planning takes, and how full the rows are: a million samples of OSD's lengths, with each kind of limit.

python experiments/speed/data/plan_speed.py --samples 1000000
"""

import argparse
import resource
import time

import numpy as np

from theworld.data.packing.plan import plan

BUDGETS = (9600, 9728, 12288, 14336, 19200)
SAMPLES_PER_SHARD = 3300


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=1_000_000)
    count = parser.parse_args().samples
    rng = np.random.default_rng(0)
    lengths = rng.integers(4300, 5201, count)
    one, several = np.ones(count, dtype=np.int64), rng.integers(0, 3, count)
    shards = np.arange(count) // SAMPLES_PER_SHARD
    cases = {
        "tokens only": {},
        "one image each, at most 3 a row": {"images": one, "max_images": 3},
        "0 to 2 images each, at most 5 a row": {"images": several, "max_images": 5},
        "windows of 8 shards": {"groups": shards, "window": 8},
    }
    print("budget  limit                                  epoch  CPU s   fill    at most  rows")
    for budget in BUDGETS:
        best = budget // lengths.min() * lengths.mean() / budget
        for name, limits in cases.items() if budget == 14336 else [("tokens only", {})]:
            for epoch in (0, 1):
                start = time.process_time()
                made = plan(lengths, seed=0, epoch=epoch, budget=budget, micro_batches_per_step=32, **limits)
                assert len(made.sha256) == 64
                took = time.process_time() - start
                print(
                    f"{budget:6}  {name:37}  {epoch:5}  {took:5.2f}  {made.fill_ratio:6.2%}  {min(best, 1):7.2%}  "
                    f"{made.num_rows}",
                    flush=True,
                )
    print(f"largest resident memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
