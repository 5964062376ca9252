"""How PyTorch's threads wait for each other; to be settled before PyTorch is imported.

OpenMP's threads wait for each other after every operation, by default in a loop that keeps their
cores busy. That is fastest if each thread has a core of its own. On a machine that is busy
already, the thread that is waited for gets no core while the others wait: at a load of 5 on two
cores, training with two threads was 2.6 to 9 times as fast with `OMP_WAIT_POLICY=passive`, and with
`threads=1` another 1.3 to 1.8 times as fast.
"""

import os
from collections.abc import MutableMapping

POLICIES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")  # the user's own settings
BUSY = 1.25  # processes that want to run, per core


def adapt_to_load(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let threads wait without keeping their cores busy, if the machine is busy.

    A wait policy that the user has set is kept. Results do not depend on it.

    Args:
        environment: the process's environment, read when PyTorch is imported.
    """
    if any(name in environment for name in POLICIES) or not hasattr(os, "getloadavg"):
        return
    try:
        load = os.getloadavg()[0]
    except OSError:  # unknown
        return
    if load > BUSY * (os.cpu_count() or 1):
        environment["OMP_WAIT_POLICY"] = "passive"
