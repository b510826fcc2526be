"""Where pip finds torch without CUDA."""

import os
import sys


def torch_index() -> list[str]:
    """Return the options by which pip does so: as in tools/pants, which says why."""
    if sys.platform == "linux" and not os.environ.get("PIP_FIND_LINKS"):
        return ["--extra-index-url", "https://download.pytorch.org/whl/cpu"]
    return []
