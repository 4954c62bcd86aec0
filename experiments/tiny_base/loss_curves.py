"""Draws the loss curves of the tiny base from its measurements.

python experiments/tiny_base/loss_curves.py theworld/tiny_base/loss_curves.png
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

HERE = Path(__file__).parent
WIDTH, HEIGHT, LEFT, TOP, BOTTOM, GAP = 460, 260, 56, 34, 34, 24
COLOURS = ("#1f6feb", "#d1242f", "#1a7f37")


def main(output: Path) -> None:
    vlm = json.loads((HERE / "measured_vlm.json").read_text())["vlm_curve"]
    vae = json.loads((HERE / "measured_vae.json").read_text())["vae_curve"]
    picture = Image.new("RGB", (2 * (WIDTH + GAP), HEIGHT + TOP + BOTTOM), "white")
    draw = ImageDraw.Draw(picture)
    curves = {"answers": 1, "dense": 2, "mentions": 3}
    panel(draw, 0, "VLM", {name: [(row[0], row[column]) for row in vlm] for name, column in curves.items()})
    panel(draw, WIDTH + GAP, "VAE", {"loss": [(step, loss) for step, loss in vae]})
    picture.save(output)


def panel(draw: ImageDraw.ImageDraw, x: int, title: str, curves: dict[str, list[tuple[float, float]]]) -> None:
    """One plot with a logarithmic loss axis."""
    font = ImageFont.load_default(13)
    last = max(step for curve in curves.values() for step, _ in curve)
    logs = [math.log10(loss) for curve in curves.values() for _, loss in curve]
    low, high = math.floor(min(logs)), math.ceil(max(logs))
    draw.text((x + LEFT, 8), f"{title}: loss over steps", fill="black", font=font)
    for power in range(low, high + 1):
        y = TOP + HEIGHT * (high - power) / (high - low)
        draw.line([(x + LEFT, y), (x + WIDTH, y)], fill="#d0d7de")
        draw.text((x + 8, y - 8), f"{10.0**power:g}", fill="black", font=font)
    draw.text((x + LEFT, TOP + HEIGHT + 8), f"0 … {last:,} steps", fill="black", font=font)
    for number, (name, curve) in enumerate(curves.items()):
        points = [
            (x + LEFT + (WIDTH - LEFT) * step / last, TOP + HEIGHT * (high - math.log10(loss)) / (high - low))
            for step, loss in curve
        ]
        draw.line(points, fill=COLOURS[number], width=2)
        draw.text((x + WIDTH - 90, TOP + 6 + 18 * number), name, fill=COLOURS[number], font=font)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
