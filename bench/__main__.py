"""``python -m exitbench`` anywhere, and ``python -m bench`` in the checkout."""

import sys

from exitbench.cli.main import main

if __name__ == "__main__":
    if __package__ == "bench":  # the folder's own name is the user's: a package called bench may be imported by their code
        sys.modules.pop("bench", None)
    main()
