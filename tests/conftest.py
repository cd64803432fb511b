"""What every test may ask for, and what holds for all of them.

Made-up examples are the same in each run, so that a run says what the next one will say. To search
among others: `HYPOTHESIS_PROFILE=search ./run test tests/…`.
"""

import os

from hypothesis import settings


pytest_plugins = ("tests.surfnet",)

settings.register_profile("same", derandomize=True)
settings.register_profile("search", derandomize=False, max_examples=1_000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))
