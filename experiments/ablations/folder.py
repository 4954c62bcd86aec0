"""The folder of one run: what it is a run of, whether it is finished, and what it found. Safe to kill at any moment.

FOLDER/config.yaml     all settings, for `theworld fit --config`
FOLDER/settings.json   what decides its result: settings, order of the data, code and libraries; written first
FOLDER/run.lock        held by the process that runs it, also when the grid that started it is gone
FOLDER/log.txt         what it printed
FOLDER/checkpoints/    where it goes on when it was killed
FOLDER/result.json     written last, and renamed into place; there is one if and only if the run is finished
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

from experiments.ablations.grid import PLACE, Values, decisive
from theworld.training.events import read_events
from theworld.training.fingerprint import code

CONFIG = "fit.yaml"  # `config.yaml` is what `theworld fit` writes itself
SETTINGS, RESULT, LOG, LOCK = "settings.json", "result.json", "log.txt", "run.lock"
PREDICTIONS, SCORES, SUMMARY = "predictions.jsonl", "scores.jsonl", "summary.json"


@dataclass(frozen=True)
class RunFolder:
    """A run's place on the disk.

    Attributes:
        path: Of the folder.
        config: All settings of the run.
        order: Hash of what it sees, and in which order.
    """

    path: Path
    config: Values
    order: str

    @property
    def settings(self) -> dict[str, dict[str, str]]:
        """What a run that goes on, and a result that is used, must have in common with this run."""
        return {"config": decisive(self.config), "order": {"sha256": self.order}, "code": code()}

    @property
    def sha256(self) -> str:
        """Of the settings."""
        return sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()

    def check(self) -> None:
        """Compare with the run that was begun here, if one was.

        Raises:
            ValueError: It had other settings.
        """
        written = self.path / SETTINGS
        if not written.exists():
            return
        found = json.loads(written.read_text(encoding="utf-8"))
        if lines := differences(found, self.settings):
            raise ValueError(
                f"{self.path}: found a run with other settings (-) than the grid has now (+):\n  "
                + "\n  ".join(lines)
                + "\nRestore them, remove the folder to run it anew, or give another output"
            )

    def prepare(self) -> None:
        """Write settings and config; to be called with the lock held.

        Raises:
            ValueError: As `check` says.
        """
        self.check()
        config = self.config | {"trainer": self.config["trainer"] | {PLACE.split(".")[1]: str(self.path)}}
        write(self.path / CONFIG, yaml.safe_dump(config, sort_keys=False))
        write(self.path / SETTINGS, json.dumps(self.settings, indent=1, sort_keys=True) + "\n")

    def result(self) -> dict[str, Any] | None:
        """What the run found; None if it is not finished.

        Raises:
            ValueError: The result is of other settings, or its answers are no longer those that were scored.
        """
        path = self.path / RESULT
        if not path.exists():
            return None
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["settings_sha256"] != self.sha256:
            self.check()  # which says what differs
            raise ValueError(f"{path}: found the result of other settings, expected {self.sha256}; remove the folder")
        for name, expected in found["files"].items():
            if file_sha256(self.path / name) != expected:
                raise ValueError(
                    f"{self.path / name}: changed since the run ended, expected sha256 {expected}; remove "
                    f"{path} to answer the questions again"
                )
        return found

    def finish(self, *, seconds: float) -> None:
        """Say that the run is finished, when its answers are on the disk.

        Args:
            seconds: That its last process took.
        """
        files = {name: file_sha256(self.path / name) for name in (PREDICTIONS, SCORES, SUMMARY)}
        facts = {"settings_sha256": self.sha256, "files": files, "seconds_of_last_process": round(seconds, 1)}
        write(self.path / RESULT, json.dumps(facts | {"resumes": self.resumes()}, indent=1) + "\n")

    def resumes(self) -> int:
        """How often the run went on from a checkpoint."""
        return sum(event["event"] == "resumed" for event in read_events(self.path))

    @contextmanager
    def locked(self) -> Iterator[int]:
        """Hold the folder; the number of the open file is for the process of the run to inherit, which holds it too.

        Raises:
            ValueError: Another process holds it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / LOCK).open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ValueError(
                    f"{self.path}: found a process that is still at this run, perhaps of a grid that was killed, "
                    "expected none; wait until it ends, or end it"
                ) from error
            yield file.fileno()


def differences(before: Mapping[str, Mapping[str, str]], now: Mapping[str, Mapping[str, str]]) -> list[str]:
    """As in a diff, two lines for each value that changed."""
    lines = []
    for section in sorted({*before, *now}):
        was, is_now = before.get(section, {}), now.get(section, {})
        for name in sorted({*was, *is_now}):
            if was.get(name) != is_now.get(name):
                lines += [
                    f"{sign} {section}: {name}: {of[name]}" for sign, of in (("-", was), ("+", is_now)) if name in of
                ]
    return lines


def file_sha256(path: Path) -> str:
    """Of a file's bytes."""
    return sha256(path.read_bytes()).hexdigest()


def write(path: Path, text: str) -> None:
    """A file that is there as a whole or not at all."""
    draft = path.with_name(path.name + ".draft")
    with draft.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
