"""Lets these tests, and the processes that they spawn, import the sample parts that lie beside them."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
