"""Makes the modules beside it importable by every test, and keeps torch to one thread.

Small tensors on shared cores are slower with two, most of all under `pytest -n 2`.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
