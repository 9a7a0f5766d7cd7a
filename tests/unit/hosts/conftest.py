"""The bench of hosts lives beside the packages, in scripts/."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[3] / "scripts"))
