"""Which images answers are about: the sha256 of each is kept beside its answer, so that no other takes its place."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

from theworld.evaluation.benchmarks.benchmark import Item
from theworld.evaluation.prediction_file import Json

NAMED = 3
"""Questions that a message names."""


class SeenImages:
    """Reads images as a benchmark does, and notes what was read; it costs no reading beyond that.

    Args:
        read_image: The benchmark's own.

    Attributes:
        sha256: Of the image of each question as it was read last, by the question's id.
    """

    def __init__(self, read_image: Callable[[Item], bytes]):
        self._read_image = read_image
        self.sha256: dict[str, str] = {}

    def __call__(self, item: Item) -> bytes:
        """The encoded image of a question."""
        encoded = self._read_image(item)
        self.sha256[item.row.id] = hashlib.sha256(encoded).hexdigest()
        return encoded

    def refuse_others(self, answered: Mapping[str, Mapping[str, Json]], path: Path) -> None:
        """See that the answers there are about the images that were read now.

        Args:
            answered: Lines of predictions, by the id of their question.
            path: Of the predictions, for the message.

        Raises:
            ValueError: An answer is about another image, or does not say about which.
        """
        again = [id for id in answered if id in self.sha256]
        if unknown := [id for id in again if "image_sha256" not in answered[id]]:
            raise ValueError(
                f"{path}: {len(unknown)} of {len(again)} answers keep no image_sha256, as earlier versions wrote them, "
                f"expected it in every line (of {_named(unknown)} for example); give another output; "
                "`theworld score` reads the file as it is"
            )
        if others := [id for id in again if answered[id]["image_sha256"] != self.sha256[id]]:
            raise ValueError(
                f"{path}: {len(others)} of {len(again)} answers are about other images, of {_named(others)}, expected "
                "those that are there now; restore them, or give another output"
            )


def _named(ids: list[str]) -> str:
    return ", ".join(map(repr, ids[:NAMED])) + (", …" if len(ids) > NAMED else "")
