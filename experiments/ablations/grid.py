"""A grid of runs: budget and arms in YAML files → one resolved `theworld fit` config for each arm and seed.

An arm's file holds only what differs from the budget. It is given to the command line value by value
(`--model.stages.language.learning_rates.world_projector=null`), because a config file that names one stage would drop
the others.
"""

from __future__ import annotations

import contextlib
import io
import json
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from theworld.cli import main as theworld

Values = dict[str, Any]
"""A config as nested dictionaries of plain YAML values."""

PLACE = "trainer.default_root_dir"
"""Where a run writes: the one setting that says nothing about its result."""

_KEYS = {"budget", "arms", "reference", "seeds", "side_by_side"}


@dataclass(frozen=True, kw_only=True)
class Grid:
    """What is to be run.

    Attributes:
        budget: Config files, one over the other, of what all arms share: data, model, stages, steps.
        arms: Name → file of its differences from the budget; None for the budget as it is.
        reference: The arm that all others are compared with.
        seeds: Of scenes, their order, and new weights; each arm has a run with each.
        side_by_side: Runs at a time, each with one thread.
        words: Further options of `theworld fit` for every run, such as where the data are.
    """

    budget: tuple[Path, ...]
    arms: dict[str, Path | None]
    reference: str
    seeds: tuple[int, ...]
    side_by_side: int = 1
    words: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: str | Path, words: Sequence[str] = ()) -> Grid:
        """The grid of a YAML file; paths in it are relative to the file.

        Raises:
            ValueError: A key is missing or unknown, a file is not there, or a value makes no grid.
        """
        path = Path(path)
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict) or set(found) != _KEYS:
            keys = sorted(found) if isinstance(found, dict) else type(found).__name__
            raise ValueError(f"{path}: found {keys}, expected the keys {sorted(_KEYS)}; see grids/tiny.yaml")
        files = {name: None if file is None else path.parent / file for name, file in found["arms"].items()}
        budget = tuple(path.parent / file for file in found["budget"])
        for file in (*budget, *files.values()):
            if file is not None and not file.is_file():
                raise ValueError(f"{path}: found no file {file}, expected one; paths are relative to the grid's file")
        if found["reference"] not in files or len(files) < 2:
            raise ValueError(
                f"{path}: found arms {sorted(files)} and reference {found['reference']!r}, expected at least two arms, "
                "the reference among them; name one of them"
            )
        seeds = found["seeds"]
        if not seeds or len(set(seeds)) != len(seeds) or not all(type(seed) is int and seed >= 0 for seed in seeds):
            raise ValueError(f"{path}: found seeds {seeds}, expected different whole numbers from 0; give at least one")
        if found["side_by_side"] < 1:
            raise ValueError(f"{path}: found side_by_side={found['side_by_side']}, expected at least 1 run at a time")
        return cls(
            budget=budget,
            arms=files,
            reference=found["reference"],
            seeds=tuple(seeds),
            side_by_side=found["side_by_side"],
            words=tuple(words),
        )

    @property
    def runs(self) -> list[Run]:
        """Seed after seed, so that a part of the grid is whole for some seeds."""
        return [Run(grid=self, arm=arm, seed=seed) for seed in self.seeds for arm in self.arms]


@dataclass(frozen=True, kw_only=True)
class Run:
    """One arm with one seed."""

    grid: Grid
    arm: str
    seed: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.arm}-seed{self.seed}"

    @property
    def words(self) -> list[str]:
        """Options of `theworld fit`, the later ones winning."""
        seed = self.seed
        seeds = [f"--seed_everything={seed}", f"--data.seed={seed}", *self._scenes()]
        return [*(f"--config={file}" for file in self.grid.budget), *seeds, *self.grid.words, *self.differences()]

    def differences(self) -> list[str]:
        """The arm's own options."""
        file = self.grid.arms[self.arm]
        values = {} if file is None else yaml.safe_load(file.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError(f"{file}: found {type(values).__name__}, expected settings; give the arm null without any")
        return [f"--{name}={_word(value)}" for name, value in leaves(values)]

    @cached_property
    def config(self) -> Values:
        """All settings, defaults included, as `theworld fit` understands them.

        Raises:
            ValueError: It does not.
        """
        printed, complaint = io.StringIO(), io.StringIO()
        try:
            with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(complaint), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of options that are given in place of a command line
                theworld(["fit", *self.words, "--print_config"])
        except SystemExit as stop:
            if stop.code:
                _, _, error = complaint.getvalue().partition("error: ")  # behind all options that there are
                raise ValueError(
                    f"{self.name}: theworld fit refuses it: {error.strip() or stop.code}; mend the budget or the arm"
                ) from stop
        return yaml.safe_load(printed.getvalue())

    def _scenes(self) -> list[str]:
        """Synthetic scenes are drawn from the seed as well, where the budget draws any."""
        drawn = any("synthetic" in (yaml.safe_load(f.read_text()).get("data") or {}) for f in self.grid.budget)
        return [f"--data.synthetic.seed={self.seed}"] if drawn else []


def leaves(values: Values, above: str = "") -> Iterator[tuple[str, object]]:
    """Every value that is no dictionary, under its dotted name."""
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def decisive(config: Values) -> dict[str, str]:
    """What two runs with the same result share: every setting but where it is written, as text."""
    return {name: _word(value) for name, value in leaves(config) if name != PLACE}


def _word(value: object) -> str:
    return json.dumps(value) if not isinstance(value, str) else value
