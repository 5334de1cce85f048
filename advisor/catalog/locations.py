"""Where the shipped data lie: in the checkout, or inside an installed wheel."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent
_BUNDLE = _PACKAGE / "bundle"

DATA_ROOT = _BUNDLE if _BUNDLE.is_dir() else _PACKAGE.parent
"""Folder with `profiles/`, `calibration/` and `app.py`."""

PROFILES = DATA_ROOT / "profiles"
CALIBRATION = DATA_ROOT / "calibration"
APP = DATA_ROOT / "app.py"
