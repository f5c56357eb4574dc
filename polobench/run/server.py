"""What the workers' server loads first: all that it loads after this stays, so that looking for garbage is in vain."""

from __future__ import annotations

import atexit
import gc

gc.disable()  # a worker enables it
atexit.register(gc.freeze)  # else it would look once more as it ends
