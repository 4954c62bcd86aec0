#!/usr/bin/env bash
# configs/tiny.yaml with five seeds of everything (scenes, data order, projector), one after another: five times five minutes on two cores.
#   bash experiments/tiny_seeds/run.sh OUTPUT [more arguments of `theworld fit`]
set -euo pipefail
output=$1
shift
mkdir -p "$output"
for seed in ${SEEDS:-0 1 2 3 4}; do
    python3 -m theworld.cli fit --config configs/tiny.yaml --seed_everything="$seed" --data.seed="$seed" \
        --data.synthetic.seed="$seed" --trainer.default_root_dir="$output/seed$seed" "$@" >"$output/seed$seed.log" 2>&1
done
python3 experiments/tiny_seeds/summarise.py "$output"/seed*
