"""The scripts of `training/judge` import one another by their bare names; so do the tests of what they write."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2] / "training" / "judge"))
