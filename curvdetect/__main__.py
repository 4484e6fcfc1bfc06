"""``python -m curvdetect``."""

import sys

from curvdetect.cli import main

if __name__ == "__main__":
    sys.exit(main())
