"""Small files that would take gigabytes are refused before memory is taken."""

import subprocess
import sys

from tests.data.png import write_grey

BOMBS = """
import sys
from pathlib import Path
from PIL import Image
from theworld.data.rows.faults import RowError
from theworld.data.pictures.images import check_image, load_image
from theworld.data.pictures.masks import check_rle, decode_rle

def peak():
    # Of this program alone: getrusage's peak also has the process that started it.
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024

def grows(act):
    before = peak()
    try:
        act()
    except ValueError:
        pass
    print(peak() - before)

data = Path(sys.argv[1]).read_bytes()
bomb = {"size": [40000, 40000], "counts": "0"}
grows(lambda: load_image(data, "a"))
grows(lambda: check_image(data, "a", decode=True))
grows(lambda: decode_rle(bomb, (640, 480)))
grows(lambda: check_rle({"size": [40000, 40000], "counts": [1600000000]}, (40000, 40000)))
Image.MAX_IMAGE_PIXELS = None
grows(lambda: load_image(data, "a", max_pixels=10**9))
"""


def test_bombs_are_refused_before_memory_is_taken(tmp_path):
    """Growth of the peak resident memory in MiB; the control decodes the same PNG with the limits lifted."""
    write_grey(13000)(tmp_path / "bomb.png")
    assert (tmp_path / "bomb.png").stat().st_size < 1_000_000
    command = [sys.executable, "-c", BOMBS, str(tmp_path / "bomb.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    *refused, decoded = map(float, done.stdout.split())
    assert len(refused) == 4
    assert max(refused) < 32
    assert decoded > 160
