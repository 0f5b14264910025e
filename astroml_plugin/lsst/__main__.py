"""`python -m astroml_plugin.lsst` prints the folder that DAF_BUTLER_CONFIG_PATH must name."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.stdout.write(f"{Path(__file__).parent / 'butler'}\n")
