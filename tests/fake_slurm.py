"""`sbatch`, `srun` and `scontrol` that do on this machine what SLURM's do on a cluster, as far as our scripts ask.

The job's tasks are real processes, all on 127.0.0.1. `FAKE_SLURM` names a folder of notes: `requeued` holds the ids of
requeued jobs; when `preempt` appears, the tasks of a job's first start get SIGUSR1, as before the end of their time.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SBATCH = """
import os, pathlib, shutil, subprocess, sys
arguments = sys.argv[1:]
options = {}
def option(word):
    name, _, value = word.removeprefix("--").partition("=")
    options[name] = value
given = []
while arguments[0].startswith("--"):
    given.append(arguments.pop(0))
script = arguments.pop(0)
for line in open(script):
    if line.startswith("#SBATCH "):
        option(line.split()[1])
for word in given:
    option(word)
nodes, per_node = int(options["nodes"]), int(options["ntasks-per-node"])
notes = pathlib.Path(os.environ["FAKE_SLURM"])
spool = notes / "slurm_script"
shutil.copy(script, spool)
job = "4217"
environment = os.environ | {
    "SLURM_JOB_ID": job,
    "SLURM_JOB_NAME": options["job-name"],
    "SLURM_SUBMIT_DIR": os.getcwd(),
    "SLURM_NNODES": str(nodes),
    "SLURM_NTASKS": str(nodes * per_node),
    "SLURM_NTASKS_PER_NODE": str(per_node),
    "SLURM_CPUS_PER_TASK": options["cpus-per-task"],
    "SLURM_JOB_NODELIST": f"node[1-{nodes}]",
}
requeued = notes / "requeued"
for start in range(10):
    before = requeued.read_text() if requeued.exists() else ""
    if start:
        environment["SLURM_RESTART_COUNT"] = str(start)
    code = subprocess.run(["bash", str(spool), *arguments], env=environment, cwd="/").returncode
    if (requeued.read_text() if requeued.exists() else "") == before:
        break
sys.exit(code)
"""
SRUN = """
import os, pathlib, signal, subprocess, sys, time
arguments = sys.argv[1:]
options = []
while arguments[0].startswith("--"):
    options.append(arguments.pop(0))
tasks, per_node = int(os.environ["SLURM_NTASKS"]), int(os.environ["SLURM_NTASKS_PER_NODE"])
def identity(rank):
    return {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank % per_node), "SLURM_NODEID": str(rank // per_node)}
def start(rank):
    return subprocess.Popen(arguments, env=os.environ | identity(rank), start_new_session=True)
running = [start(rank) for rank in range(tasks)]
preempt = pathlib.Path(os.environ["FAKE_SLURM"]) / "preempt"
told = int(os.environ.get("SLURM_RESTART_COUNT", 0)) > 0
while any(task.poll() is None for task in running):
    if not told and preempt.exists():
        told = True
        for task in running:
            task.send_signal(signal.SIGUSR1)
    if "--kill-on-bad-exit=1" in options and any(task.poll() for task in running):
        for task in running:
            if task.poll() is None:
                os.killpg(task.pid, signal.SIGKILL)  # with all that it started, as SLURM does
    time.sleep(0.01)
codes = [task.returncode for task in running]
sys.exit(max(code if code >= 0 else 128 - code for code in codes))
"""
SCONTROL = """
import os, pathlib, sys
if sys.argv[1:3] == ["show", "hostnames"]:
    for _ in range(int(os.environ["SLURM_NNODES"])):
        print("127.0.0.1")
elif sys.argv[1] == "requeue":
    with (pathlib.Path(os.environ["FAKE_SLURM"]) / "requeued").open("a") as file:
        file.write(sys.argv[2] + "\\n")
else:
    sys.exit(f"scontrol: {sys.argv[1:]}")
"""
COMMANDS = {"sbatch": SBATCH, "srun": SRUN, "scontrol": SCONTROL}


class FakeSlurm:
    """The commands in a folder of their own, and what they noted.

    Args:
        folder: For both.
    """

    def __init__(self, folder: Path):
        self.commands, self.notes = folder / "bin", folder / "notes"
        self.commands.mkdir()
        self.notes.mkdir()
        for name, text in COMMANDS.items():
            self.command(name, f"#!{sys.executable}{text}")

    def command(self, name: str, text: str) -> None:
        """Put one more command on PATH."""
        path = self.commands / name
        path.write_text(text)
        path.chmod(0o755)

    def run(self, *words: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command where the fakes come first."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
        path = f"{self.commands}:{kept['PATH']}"
        whole = kept | {"PATH": path, "FAKE_SLURM": str(self.notes)} | environment
        return subprocess.run(words, cwd=cwd, env=whole, capture_output=True, text=True, timeout=300)

    @property
    def requeued(self) -> list[str]:
        """Ids of requeued jobs."""
        path = self.notes / "requeued"
        return path.read_text().split() if path.exists() else []
