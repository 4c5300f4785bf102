"""``python -m segradius``."""

import sys

from segradius.cli import main

if __name__ == "__main__":
    sys.exit(main())
