"""``python -m edgeopt`` is the ``edgeopt`` command."""

from .cli import main

raise SystemExit(main())
