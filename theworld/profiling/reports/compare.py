"""Reports side by side, from their JSON files alone: markdown, one HTML file, one picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from theworld.profiling.reports.compare_figure import draw
from theworld.profiling.reports.compare_page import markdown, page
from theworld.profiling.reports.comparison import Compared
from theworld.profiling.reports.schema import read_report


def compare(reports: Sequence[Path], *, output: Path) -> Path:
    """Compare profiles; the first is what the others are compared with.

    Writes `compare.md`, `compare.html` (which loads nothing), `compare.png` and `compare.json`.

    Args:
        reports: Folders of profiles, or their `report.json`; two or more.
        output: Folder for the files; made if it is missing.

    Returns:
        The HTML file.

    Raises:
        ValueError: Fewer than two reports, or one that cannot be read.
    """
    if len(reports) < 2:
        raise ValueError(f"found {len(reports)} reports, expected two or more; name the folders of two profiles")
    compared = Compared([read_report(place) for place in reports], [str(place) for place in reports])
    picture = draw(compared)
    output.mkdir(parents=True, exist_ok=True)
    (output / "compare.png").write_bytes(picture)
    (output / "compare.md").write_text(markdown(compared))
    (output / "compare.json").write_text(json.dumps(compared.as_json(), indent=1) + "\n")
    html = output / "compare.html"
    html.write_text(page(compared, picture))
    return html
