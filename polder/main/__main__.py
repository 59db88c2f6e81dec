"""``python -m polder.main``: how the daemons are started, whatever the PATH."""

import sys

from polder.main.entry import main

sys.exit(main())
