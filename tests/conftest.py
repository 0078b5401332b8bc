"""What every test shares: hypothesis profiles.

`dev` (the default) draws new examples on each run and prints how to repeat a failure; `ci` draws the same
ones every time. Neither has a deadline: a slow machine is not a wrong answer.
"""

import os

from hypothesis import settings

settings.register_profile("dev", deadline=None, print_blob=True)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))
