"""One lock for what NumPyro keeps once per process.

The stack of its effect handlers is one list, and whether distributions validate is one switch: two
threads that trace at the same time see each other's. A model is traced again, and its densities
are, whenever a compiled run is traced. So both happen under this lock.
"""

import threading

NUMPYRO = threading.RLock()
