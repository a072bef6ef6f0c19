"""`python -m fastpixel` is the command `fastpixel`."""

import sys

from fastpixel.cli import main

sys.exit(main())
