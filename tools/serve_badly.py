"""Imitate a service that is out of order, until standard input ends: `serve_badly.py MODE`.

MODE is a mode of the contract's `StandIn`: `silent` or `broken`. The script prints its address.
"""

import sys

from callback_contract.testing import StandIn

server = StandIn()
server.mode = sys.argv[1]  # type: ignore[assignment]
with server:
    print(server.url, flush=True)
    sys.stdin.read()
