"""Training runs of one or several ranks in processes of their own, which a test can wait for or kill.

A server process imports the package once and is forked for every rank, so that a rank starts in a moment.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
from collections.abc import Callable
from multiprocessing.process import BaseProcess

import torch

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "tests.training.recorded_run",
        "tests.training.double_step",
        "tests.training.parallel.staged_run",
        "tests.training.preempted_run",
    ]
)


class Ranks:
    """`world_size` processes that each call `run(**arguments)` as one rank of a Lightning run over gloo.

    Args:
        run: A function of a module.
        world_size: Number of ranks.
        context: How a process begins: forked from the server, or `spawn` for a GPU, which no process may use that was
            forked from one that had looked for it.
        arguments: For the function; picklable.
    """

    def __init__(
        self,
        run: Callable[..., None],
        *,
        world_size: int,
        context: multiprocessing.context.BaseContext = CONTEXT,
        **arguments: object,
    ):
        port = _free_port()
        self.processes: list[BaseProcess] = []
        for rank in range(world_size):
            process = context.Process(target=_be_rank, args=(rank, world_size, port, run, arguments))
            process.start()
            self.processes.append(process)

    def wait(self, timeout: float = 180) -> None:
        """Wait for all ranks; whatever happens, none is left behind."""
        try:
            for process in self.processes:
                process.join(timeout)
            codes = [process.exitcode for process in self.processes]
            assert codes == [0] * len(codes), f"exit codes of the ranks: {codes}"
        finally:
            self.kill()

    def kill(self) -> None:
        """SIGKILL to every rank that still runs."""
        for process in self.processes:
            if process.is_alive() and process.pid is not None:
                os.kill(process.pid, signal.SIGKILL)
            process.join()

    @property
    def running(self) -> bool:
        return all(process.is_alive() for process in self.processes)


def _be_rank(rank: int, world_size: int, port: int, run: Callable[..., None], arguments: dict[str, object]) -> None:
    multiprocessing.set_start_method("fork", force=True)  # for a loader's workers, as outside of a server process
    torch.set_num_threads(1)
    if world_size > 1:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "NODE_RANK": "0", "WORLD_SIZE": str(world_size)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    run(world_size=world_size, **arguments)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
