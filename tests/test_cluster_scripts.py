"""The scripts of `configs/cluster`, run by bash under a scheduler that is faked, with processes that are not."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fake_slurm import FakeSlurm

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted(path for path in (ROOT / "configs" / "cluster").iterdir() if path.suffix in (".sh", ".sbatch"))
SBATCH = "configs/cluster/slurm.sbatch"

NOTING = f"""#!{sys.executable}
import json, os, pathlib, sys
names = ["SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS"]
seen = {{name: os.environ.get(name) for name in [*names, "SRUN_CPUS_PER_TASK"]}} | {{"arguments": sys.argv[1:]}}
with (pathlib.Path(os.environ["FAKE_SLURM"]) / "seen.jsonl").open("a") as file:
    file.write(json.dumps(seen) + "\\n")
"""
"""A `theworld` that notes how it was started."""
ENDING = (
    NOTING
    + """
import signal, time
rank, first = int(os.environ["SLURM_PROCID"]), "SLURM_RESTART_COUNT" not in os.environ
if first or "ALWAYS" in os.environ:
    signal.signal(signal.SIGUSR1, lambda *_: (time.sleep(0.2 * rank), os._exit(85)))
    notes = pathlib.Path(os.environ["FAKE_SLURM"])
    (notes / f"ready{rank}").touch()
    if len(list(notes.glob("ready*"))) == int(os.environ["SLURM_NTASKS"]):
        (notes / "preempt").touch()
    if not first:
        os._exit(85)
    time.sleep(30)
"""
)
"""One that runs until SIGUSR1 and leaves with 85, rank by rank; started again it ends well."""


@pytest.fixture
def slurm(tmp_path) -> FakeSlurm:
    return FakeSlurm(tmp_path)


def seen(slurm: FakeSlurm) -> list[dict]:
    lines = (slurm.notes / "seen.jsonl").read_text().splitlines()
    return sorted(map(json.loads, lines), key=lambda line: int(line["SLURM_PROCID"] or 0))


def submit(slurm: FakeSlurm, *arguments: str, nodes: int = 2, per_node: int = 2, **environment: str):
    size = (f"--nodes={nodes}", f"--ntasks-per-node={per_node}")
    return slurm.run("sbatch", *size, SBATCH, *arguments, cwd=ROOT, **environment)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_valid(script):
    subprocess.run(["bash", "-n", str(script)], check=True)
    if checker := shutil.which("shellcheck"):
        subprocess.run([checker, "--severity=style", "--exclude=SC1091", str(script)], check=True)


def test_the_scripts_are_found():
    assert [path.name for path in SCRIPTS] == ["one_node.sh", "slurm.sbatch", "task.sh"]


def test_every_task_knows_its_place_and_where_to_meet(slurm):
    slurm.command("theworld", NOTING)
    done = submit(slurm, "--config", "a file with spaces.yaml")
    assert done.returncode == 0, done.stderr
    tasks = seen(slurm)
    places = [(t["SLURM_PROCID"], t["SLURM_LOCALID"], t["SLURM_NODEID"]) for t in tasks]
    assert places == [("0", "0", "0"), ("1", "1", "0"), ("2", "0", "1"), ("3", "1", "1")]
    size = ["--trainer.num_nodes=2", "--trainer.devices=2"]
    for task in tasks:
        assert task["arguments"] == ["fit", "--ckpt_path=last", "--config", "a file with spaces.yaml", *size]
        assert (task["MASTER_ADDR"], task["MASTER_PORT"]) == ("127.0.0.1", "19217")
        assert task["SRUN_CPUS_PER_TASK"] == "12"  # as the script asks for
    assert "2 nodes x 2 processes, which meet at 127.0.0.1:19217" in done.stdout
    assert slurm.requeued == []


def test_a_preempted_job_is_requeued_and_goes_on(slurm):
    """All tasks get to leave in their own time: none is killed because another left first."""
    slurm.command("theworld", ENDING)
    done = submit(slurm)
    assert done.returncode == 0, done.stderr
    assert slurm.requeued == ["4217"]
    assert len(seen(slurm)) == 8  # four tasks, twice
    assert "start 1" in done.stdout
    assert not list(ROOT.glob(".preempted-*"))


def test_not_for_ever(slurm):
    slurm.command("theworld", ENDING)
    done = submit(slurm, ALWAYS="1", MAX_REQUEUES="2")
    assert done.returncode == 85
    assert len(slurm.requeued) == 2
    assert "has been requeued 2 times already" in done.stderr


def run_held(slurm: FakeSlurm, folder: Path, *, behind: str) -> tuple[int, bool]:
    """Exit code of a task whose shell is held up before a command, and whether it was noted as preempted."""
    held, preempted = folder / "held", folder / "preempted"
    held.write_text(f"""trap 'if [ "$BASH_COMMAND" = "{behind}" ]; then sleep 0.5; fi' DEBUG\n""")
    done = slurm.run(
        "bash", "configs/cluster/task.sh", "fit", cwd=ROOT, BASH_ENV=str(held), THEWORLD_PREEMPTED=str(preempted)
    )
    return done.returncode, preempted.exists()


LEAVING = "#!/usr/bin/env bash\ntrap 'kill $!; exit 85' USR1\nsleep 20 &\nsleep {delay}\nkill -USR1 $PPID\nwait\n"
"""A `theworld` that asks for the signal and leaves with 85 as soon as it comes."""


def test_a_signal_that_comes_while_a_task_is_being_started_reaches_it(slurm, tmp_path):
    """The shell is held up right behind the start of its process, which asks for the signal at once."""
    slurm.command("theworld", LEAVING.format(delay=0))
    assert run_held(slurm, tmp_path, behind="child=\\$!") == (0, True)


def test_a_process_that_leaves_at_once_is_not_taken_for_one_that_the_signal_killed(slurm, tmp_path):
    """The signal ends the shell's wait; before the shell looks, the process has left with 85."""
    slurm.command("theworld", LEAVING.format(delay=0.5))
    assert run_held(slurm, tmp_path, behind="code=\\$?") == (0, True)


def test_a_process_that_a_signal_kills_is_told_as_such(slurm, tmp_path):
    slurm.command("theworld", "#!/usr/bin/env bash\nkill -KILL $$\n")
    assert run_held(slurm, tmp_path, behind="no command") == (137, False)


def test_a_job_that_fails_is_not_requeued_and_none_of_it_stays(slurm):
    """Rank 1 fails while the others would run on."""
    failing = '#!/usr/bin/env bash\nif [ "$SLURM_PROCID" = 1 ]; then exit 3; fi\nexec sleep 20\n'
    slurm.command("theworld", failing)
    done = submit(slurm)
    assert done.returncode == 137  # srun's: that of those it killed
    assert slurm.requeued == []
    assert "ends with code 137" in done.stderr


def test_what_is_missing_is_said(slurm, tmp_path):
    alone = slurm.run("bash", SBATCH, cwd=ROOT)
    assert alone.returncode == 2
    assert "expected to be run by: sbatch" in alone.stderr
    elsewhere = slurm.run("sbatch", str(ROOT / SBATCH), cwd=tmp_path)
    assert elsewhere.returncode == 2
    assert "expected to be submitted from the repository's root" in elsewhere.stderr
    empty = slurm.run("bash", "configs/cluster/one_node.sh", cwd=ROOT)
    assert empty.returncode == 2
    assert "expected those of 'theworld fit'" in empty.stderr


def test_one_node_counts_its_gpus(slurm):
    slurm.command("torchrun", NOTING)
    slurm.command("nvidia-smi", "#!/usr/bin/env bash\nprintf 'GPU 0: x\\nGPU 1: x\\nGPU 2: x\\n'\n")
    script = ("bash", "configs/cluster/one_node.sh", "--config", "a b.yaml")
    for environment, count in (({}, 3), ({"PROCESSES": "2"}, 2)):
        (slurm.notes / "seen.jsonl").unlink(missing_ok=True)
        assert slurm.run(*script, cwd=ROOT, **environment).returncode == 0
        (started,) = seen(slurm)
        launcher = ["--standalone", f"--nproc-per-node={count}", "--max-restarts=3", "-m", "theworld"]
        run = ["fit", "--ckpt_path=last", "--config", "a b.yaml"]
        size = ["--trainer.num_nodes=1", f"--trainer.devices={count}"]
        assert started["arguments"] == [*launcher, *run, *size]


TINY = [
    "--config=configs/tiny.yaml",
    "--trainer.strategy=ddp_find_unused_parameters_true",
    "--trainer.accumulate_grad_batches=1",
    "--trainer.enable_progress_bar=false",
    "--test_after_fit=false",
    "--data.synthetic.num_train=40",
    "--data.synthetic.num_val=4",
    "--data.synthetic.num_test=4",
    *(f"--model.stages.{stage}.max_steps=2" for stage in ("projection", "vision", "language")),
]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["slurm", "torchrun"])
def test_two_processes_train_the_tiny_config_to_its_end(slurm, tmp_path, launcher):
    """Over gloo, as two nodes of one process each under SLURM, and as one node of two under torchrun."""
    slurm.command("theworld", f'#!/usr/bin/env bash\nexec {sys.executable} -m theworld "$@"\n')
    folders = [f"--trainer.default_root_dir={tmp_path / 'run'}", f"--data.synthetic.cache_dir={tmp_path / 'scenes'}"]
    settings = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    if launcher == "slurm":
        done = submit(slurm, *TINY, *folders, nodes=2, per_node=1, **settings)
    else:
        bin_folder = str(Path(sys.executable).parent)
        slurm.command("torchrun", f'#!/usr/bin/env bash\nexec {bin_folder}/torchrun "$@"\n')
        done = slurm.run("bash", "configs/cluster/one_node.sh", *TINY, *folders, cwd=ROOT, PROCESSES="2", **settings)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "MEMBER: 2/2" in done.stderr + done.stdout  # Lightning's word for a rank of two
    assert "`Trainer.fit` stopped: `max_steps=6` reached" in done.stderr + done.stdout
    exported = sorted(path.name for path in (tmp_path / "run" / "export").iterdir())
    assert exported == ["language", "projection", "vision"]
