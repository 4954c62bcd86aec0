"""Predictions on disk while a model answers: one line a question, appended batch by batch, resumable after a kill.

    DIR/predictions.jsonl   a line a question: all that is needed to score it again
    DIR/settings.json       once: model, weights, benchmark files, rendering, decoding, versions

Only a run with the same settings may go on with a file; a mixture of two models' answers would score like neither.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

Json = str | float | None | list["Json"] | dict[str, "Json"]

PREDICTIONS, SETTINGS = "predictions.jsonl", "settings.json"


class PredictionFile:
    """The predictions of one run, to be used as a context manager, which holds the file for this process alone.

    Args:
        folder: Made if it is not there.
        decisive: What decides an answer, in plain JSON types. A run that goes on must have the same.
        notes: What else is worth knowing of the run; replaced by that of the newest run.

    Attributes:
        rows: The lines, by the id of their question; those of earlier runs at first.

    Raises:
        ValueError: The folder holds predictions made with other settings, or a line that is none; or another process
            writes there.
    """

    def __init__(self, folder: str | Path, *, decisive: Mapping[str, Json], notes: Mapping[str, Json]):
        self.folder = Path(folder)
        self.decisive = dict(decisive)
        self.notes = dict(notes)
        self.rows: dict[str, dict[str, Json]] = {}
        self._file: BinaryIO | None = None

    @property
    def path(self) -> Path:
        """Of the predictions."""
        return self.folder / PREDICTIONS

    def __enter__(self) -> PredictionFile:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise ValueError(f"{self.path}: another process writes it; wait for it, or give another output") from error
        try:
            self._take_over()
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._file is not None, "entered before"
        self._file.close()

    def append(self, rows: Iterable[Mapping[str, Json]]) -> None:
        """Write lines behind the others, and have the disk hold them when this returns."""
        assert self._file is not None, "to be used in a with block"
        added = {str(row["id"]): dict(row) for row in rows}
        lines = [json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in added.values()]
        self._file.write("".join(lines).encode())
        self._file.flush()
        os.fsync(self._file.fileno())
        self.rows |= added

    def _take_over(self) -> None:
        assert self._file is not None, "called from __enter__"
        self._file.seek(0)
        content = self._file.read()
        whole, _, torn = content.rpartition(b"\n")
        settings = self.folder / SETTINGS
        if content and not settings.is_file():
            raise ValueError(f"{self.path}: found predictions without {SETTINGS}, expected both; give another output")
        if content:
            self._refuse_other(settings)
        if torn:  # the line that a killed run was writing
            self._file.truncate(len(content) - len(torn))
        for number, line in enumerate(whole.split(b"\n") if whole else (), start=1):
            row = self._read(line, number)
            self.rows[str(row["id"])] = row
        draft = settings.with_suffix(".draft")
        draft.write_text(json.dumps(self._settings(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        draft.replace(settings)

    def _settings(self) -> dict[str, Json]:
        return {"settings_sha256": settings_sha256(self.decisive), "decisive": self.decisive, "notes": self.notes}

    def _refuse_other(self, path: Path) -> None:
        try:
            found = json.loads(path.read_text(encoding="utf-8"))["decisive"]
            differing = {
                key: (found.get(key), self.decisive.get(key))
                for key in sorted({*found, *self.decisive})
                if found.get(key) != self.decisive.get(key)
            }
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}: not the settings of a run ({error}); give another output") from error
        if differing:
            changes = "; ".join(f"{key}: {was!r} there, {now!r} now" for key, (was, now) in differing.items())
            raise ValueError(
                f"{self.path}: its answers were made with other settings ({changes}); restore them, or give another "
                "output"
            )

    def _read(self, line: bytes, number: int) -> dict[str, Json]:
        try:
            row = json.loads(line)
            if not isinstance(row["id"], str) or not isinstance(row["prediction"], str):
                raise ValueError("id or prediction is no text")
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self.path}, line {number}: not a prediction ({error!r}); remove the line") from error
        if row["id"] in self.rows:
            raise ValueError(f"{self.path}, line {number}: id {row['id']!r} occurs twice; remove one of the lines")
        return row


def settings_beside(predictions: str | Path) -> str | None:
    """`settings_sha256` of the run that wrote a file of predictions; None where no run of `evaluate` did.

    Raises:
        ValueError: There are settings that are no JSON object.
    """
    path = Path(predictions)
    settings = path.with_name(SETTINGS)
    if path.name != PREDICTIONS or not settings.is_file():
        return None
    try:
        found = json.loads(settings.read_text(encoding="utf-8")).get("settings_sha256")
    except (ValueError, AttributeError) as error:
        raise ValueError(
            f"{settings}: found no settings of a run ({error}), expected those of {path.name}; remove the file"
        ) from error
    return found if isinstance(found, str) else None


def settings_sha256(decisive: Mapping[str, Json]) -> str:
    """What two runs with the same decisive settings share; hexadecimal."""
    return hashlib.sha256(json.dumps(decisive, sort_keys=True, ensure_ascii=True).encode()).hexdigest()
