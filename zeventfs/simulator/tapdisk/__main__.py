"""The same as zeventfs-tapdisk."""

import sys

from zeventfs.simulator.tapdisk.process import main

sys.exit(main())
