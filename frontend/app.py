"""`python frontend/app.py` in a checkout; the platform starts `python -m fulcrum_ui`, which is the same."""

import sys

from fulcrum_ui.__main__ import main

sys.exit(main())
