"""The scaling study: what counts as exposed communication, how its tables read, and a small run of all of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest

from experiments.scaling import study
from experiments.scaling.exposed import communication, length
from experiments.scaling.study import Job, side_by_side
from experiments.scaling.tables import agreement, efficiency, resumed, write_table

ROOT = Path(__file__).parents[2]


def test_the_length_of_a_union_counts_nothing_twice():
    assert length([(0, 10), (5, 20), (6, 7), (30, 31)]) == 21
    assert length([]) == 0


def test_communication_is_exposed_where_no_other_kernel_runs():
    kernels = [
        ("gemm", (0.0, 1000.0)),
        ("ncclDevKernel_AllGather", (500.0, 2000.0)),  # 1 ms of it alone
        ("ncclDevKernel_ReduceScatter", (1800.0, 2500.0)),  # beside the other one and alone
        ("norm", (2400.0, 3000.0)),
    ]
    found = communication(kernels)
    assert found == {"communication_ms": 2.0, "exposed_communication_ms": 1.4, "kernels_ms": 3.0}
    covered = communication([("gemm", (0.0, 3000.0)), *kernels])
    assert covered["exposed_communication_ms"] == 0.0


def run(devices: int, seconds: float, losses: list[float], resumed: dict | None = None) -> dict:
    weak = {"seconds": seconds, "tokens_per_second_and_device": 100 / seconds, "peak_gib": 1.0}
    weak |= {"communication_ms": 1.0, "exposed_communication_ms": 0.5}
    agree = {"losses": {str(i): loss for i, loss in enumerate(losses, 1)}, "save_seconds": 1.0, "checkpoint_bytes": 5}
    facts = {"stage": "projection", "strategy": "ddp", "devices": devices, "device": "cpu", "torch": "2", "tokens": 100}
    return facts | {"global_rows": 2, "weak": weak, "agree": agree, "resumed": resumed or {}}


def test_a_study_is_compared_with_one_device_and_with_who_wrote(tmp_path):
    one = run(1, 1.0, [3.0, 2.0, 1.0], {"2": {"losses": {"3": 1.25}, "restore_seconds": 2.0}})
    two = run(2, 1.25, [3.0, 2.5, 1.5], {"1": {"losses": {"3": 1.0}, "restore_seconds": 2.0}})
    runs = [one, two]
    assert (efficiency(runs, one), efficiency(runs, two)) == (1.0, 0.8)
    assert agreement(runs, two) == 0.5
    assert resumed(runs) == [("projection", "2", 1, 0.25), ("projection", "1", 2, 0.0)]
    write_table({"runs": runs}, tmp_path / "table.md")
    assert "| projection | ddp | 2 | 1.250 | 80 | 80.0% |" in (tmp_path / "table.md").read_text()


def test_jobs_fill_the_devices(tmp_path, monkeypatch):
    """Each as soon as there is room: the small one does not wait for the large one, nor the large one for ever."""

    def command(job, arguments):
        code = "import json, os, sys, time; time.sleep(float(sys.argv[1])); file = open(sys.argv[2] + '.json', 'w'); "
        code += "json.dump({'devices': os.environ['CUDA_VISIBLE_DEVICES']}, file)"
        return [sys.executable, "-c", code, "1.5" if job.stage == "language" else "0.1", str(tmp_path / job.name)]

    monkeypatch.setattr(Job, "command", command)
    jobs = [Job("language", 1), Job("language", 2), Job("vision", 1), Job("projection", 1, 2)]
    arguments = Namespace(sizes=[1, 2], folder=tmp_path, tiny=False, timeout=20.0)
    found = [(job.name, result["devices"]) for job, result in side_by_side(jobs, arguments)]
    assert found == [("vision-1", "1"), ("projection-1-from-2", "1"), ("language-1", "0"), ("language-2", "0,1")]


def test_the_command_makes_its_folders_and_writes_table_and_picture(tmp_path, monkeypatch):
    """Into folders that there are not yet, as its docstring names them; memory is 0 on a CPU."""
    facts = {size: run(size, 1.0, [3.0, 2.0]) for size in (1, 2)}
    for one in facts.values():
        one["weak"]["peak_gib"] = 0.0

    def command(job, arguments):
        path = arguments.folder / f"{job.name}.json"
        return [
            sys.executable,
            "-c",
            f"import sys; open({str(path)!r}, 'w').write(sys.argv[1])",
            json.dumps(facts[job.size]),
        ]

    monkeypatch.setattr(Job, "command", command)
    words = [f"--folder={tmp_path}/a/scratch", f"--output={tmp_path}/b/results", "--stages=projection", "--parts=train"]
    monkeypatch.setattr(sys, "argv", ["study.py", "--tiny", *words])
    study.main()
    made = tmp_path / "b" / "results"
    assert json.loads((made / "scaling.json").read_text())["runs"] == [facts[1], facts[2]]
    assert "| projection | ddp | 2 | 1.000 | 100 | 100.0% |" in (made / "scaling.md").read_text()
    assert (made / "scaling.png").stat().st_size > 1000


def test_a_job_that_fails_ends_the_study_with_its_log(tmp_path, monkeypatch):
    monkeypatch.setattr(Job, "command", lambda job, _: [sys.executable, "-c", "raise SystemExit('no such thing')"])
    with pytest.raises(SystemExit, match="language-1 ended with 1 .*\nno such thing"):
        list(side_by_side([Job("language", 1)], Namespace(sizes=[1], folder=tmp_path, tiny=False, timeout=20.0)))


@pytest.mark.slow
def test_two_processes_train_and_resume_as_one_does(tmp_path):
    """The script that GPUs run, on two gloo processes, with FSDP2."""
    for size in (1, 2):
        command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={size}"]
        command += ["--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0", "experiments/scaling/run.py", "--tiny"]
        command += ["--stage=language", f"--folder={tmp_path}", f"--output={tmp_path}/{size}.json"]
        command += ["--parts", "train", "resume", "--written_on=1"] if size == 2 else []
        subprocess.run(command, cwd=ROOT, check=True, env=os.environ | {"PYTHONPATH": str(ROOT)}, timeout=200)
    one, two = (json.loads((tmp_path / f"{size}.json").read_text()) for size in (1, 2))
    assert len(one["agree"]["losses"]) == 12
    assert agreement([one, two], two) < 1e-4
    ((_, writer, reader, difference),) = resumed([one, two])
    assert (writer, reader) == ("1", 2)
    assert difference < 1e-4
    losses = list(one["agree"]["losses"].values())
    assert losses[-1] < losses[0] - 0.1  # control: a run that did not train would agree as well
