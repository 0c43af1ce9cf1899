"""``python -m mulligan`` is the command ``mulligan``."""

import sys

from mulligan.cli import main

sys.exit(main())
