"""Hypothesis profiles of all tests; the environment variable HYPOTHESIS_PROFILE chooses one.

An example has no time limit in any of them, since machines are slow at times. The profile "mutation"
is for runs that are repeated for each fault: few examples, always the same, and no shrinking.
"""

import os

from hypothesis import Phase, settings

settings.register_profile("slow machine", deadline=None)
settings.register_profile(
    "mutation",
    deadline=None,
    max_examples=10,
    stateful_step_count=25,
    derandomize=True,
    database=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "slow machine"))
