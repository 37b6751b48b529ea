"""`python -m prpc.dev_broker`."""

from __future__ import annotations

import sys

from prpc.dev_broker.command import main

if __name__ == "__main__":
    sys.exit(main())
