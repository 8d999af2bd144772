"""Lets the tests of the engine import the stub training that lies beside them, in their processes too."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
