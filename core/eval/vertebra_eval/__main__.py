"""`python -m vertebra_eval` is the command `vertebra-eval`."""

import sys

from vertebra_eval.command.main import main

sys.exit(main())
