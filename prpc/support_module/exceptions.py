"""The old import path of the errors; they live in `prpc.exceptions`."""

from prpc.exceptions import *  # noqa: F403
from prpc.exceptions import __all__ as __all__
