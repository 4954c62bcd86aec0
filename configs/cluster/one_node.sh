#!/usr/bin/env bash
# All GPUs of one node: torchrun starts one process each, and starts all of them anew when one dies.
#
#   configs/cluster/one_node.sh --config configs/stage1.yaml --data.train_path=… …
#
# Arguments are those of `theworld fit`; the number of devices is added. Every start goes on from the newest checkpoint
# in trainer.default_root_dir that verifies, so the same command again continues a run that was ended.
#
# PROCESSES     how many processes (default: one a GPU)
# MAX_RESTARTS  how often all are started anew after a failure (default 3)
set -euo pipefail

if [ "$#" = 0 ]; then
    echo "found no arguments, expected those of 'theworld fit', for example --config configs/stage1.yaml" >&2
    exit 2
fi
processes=${PROCESSES:-$(nvidia-smi --list-gpus | wc -l)}
# One thread a process leaves the cores to the loader's workers.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
exec torchrun --standalone --nproc-per-node="$processes" --max-restarts="${MAX_RESTARTS:-3}" \
    -m theworld fit --ckpt_path=last "$@" --trainer.num_nodes=1 --trainer.devices="$processes"
