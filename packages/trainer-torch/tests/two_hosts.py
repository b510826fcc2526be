"""Trains on two hosts while the link between them is cut or slowed: `two_hosts.py`.

The hosts are network namespaces of this machine, with two ranks each under a torchrun of their
own. This needs root and the command `ip`; without them, the exit status is 77.

- *cut*: the link is down until all ranks have ended, and up again. Each rank must print its stacks
  within the limit and say who is lost. torchrun then takes the training up again.
- *slowed*: the link has 200 kbit/s for the rest of the training. No rank may raise an alarm.

Each training must end by itself, with the weights of an undisturbed one to the bit. The exit status
is 1 if one does not.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import hang_cases

NOT_POSSIBLE: Final = 77
RANKS: Final = 4
PATIENCE: Final = 900  # seconds; they only end what hangs
NAMES: Final = "/etc/netns"
HOSTS: Final = {"host-a": "10.77.0.1", "host-b": "10.77.0.2"}


def ip(*arguments: str) -> None:
    """Run the command `ip`."""
    subprocess.run(["ip", *arguments], check=True)


@contextmanager
def network() -> Iterator[None]:
    """Make two hosts with a link between them."""
    try:
        for host in HOSTS:
            ip("netns", "add", host)
            names = Path(NAMES, host, "hosts")  # what the host sees as /etc/hosts
            names.parent.mkdir(parents=True, exist_ok=True)
            names.write_text("".join(f"{address} {name}\n" for name, address in HOSTS.items()))
        ip("link", "add", "host-a", "netns", "host-a", "type", "veth", "peer", "host-b")
        ip("link", "set", "host-b", "netns", "host-b")
        for host, address in HOSTS.items():
            ip("-n", host, "address", "add", f"{address}/24", "dev", host)
            ip("-n", host, "link", "set", host, "up")
            ip("-n", host, "link", "set", "lo", "up")
        yield
    finally:
        for host in HOSTS:
            subprocess.run(["ip", "netns", "delete", host], stderr=subprocess.DEVNULL)
            shutil.rmtree(Path(NAMES, host), ignore_errors=True)


def start(host: str, out: Path) -> subprocess.Popen[bytes]:
    """Start the torchrun of a host. Its output goes to a file."""
    address = HOSTS[host]
    torchrun = [
        *(sys.executable, "-m", "torch.distributed.run"),
        *("--nnodes", "2", "--nproc-per-node", str(RANKS // 2), "--max-restarts", "3"),
        *("--rdzv-backend", "c10d", "--rdzv-endpoint", f"{HOSTS['host-a']}:29400"),
        *("--rdzv-id", out.name, "--local-addr", address),
    ]
    within = ["ip", "netns", "exec", host, "unshare", "--uts", "sh", "-c"]
    command = [*within, f'hostname {host}; exec "$@"', "sh"]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path)),
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": host,
    }
    with (out / f"{host}.log").open("wb") as log:
        return subprocess.Popen(
            [*command, *torchrun, hang_cases.__file__, "steady", str(out)],
            env=environment,
            stdout=log,
            stderr=log,
        )


class Ended(NamedTuple):
    """How a training ended: the exit status of each torchrun, its weights, and its output."""

    statuses: list[int]
    weights: set[str]
    logs: dict[str, str]


def train(out: Path, disturb: Callable[[Path], None]) -> Ended:
    """Train on both hosts, and disturb the link when a few steps are done."""
    out.mkdir()
    processes = [start(host, out) for host in HOSTS]
    try:
        wait_until(
            lambda: steps_of(out, 0) > 12 or any(one.poll() is not None for one in processes),
            "the training begins",
        )
        disturb(out)
        statuses = [process.wait(PATIENCE) for process in processes]
    finally:
        for process in processes:
            process.terminate()  # torchrun then ends its ranks
            process.wait()
    logs = {host: (out / f"{host}.log").read_text("utf-8", "replace") for host in HOSTS}
    return Ended(statuses, {path.read_text() for path in out.glob("weights*")}, logs)


def wait_until(happens: Callable[[], bool], what: str) -> None:
    """Wait until something happens."""
    until = time.monotonic() + PATIENCE
    while not happens():
        if time.monotonic() > until:
            raise TimeoutError(f"In {PATIENCE} seconds, this did not happen: {what}.")
        time.sleep(0.05)


def steps_of(out: Path, attempt: int) -> int:
    """Return how many steps all ranks of an attempt have done."""
    steps = [path.read_text() for path in out.glob(f"step-{attempt}-*")]
    return min(int(step or 0) for step in steps) if len(steps) == RANKS else 0


def cut(out: Path) -> None:
    """Cut the link until all ranks have printed their stacks and ended."""
    began = time.monotonic()
    ip("-n", "host-a", "link", "set", "host-a", "down")
    wait_until(lambda: len(ranks_with_stacks(out)) == RANKS, "each rank prints its stacks")
    print(f"All ranks had printed their stacks {time.monotonic() - began:.0f} s after the cut.")
    time.sleep(20)  # the ranks end; torchrun cannot meet the other one
    ip("-n", "host-a", "link", "set", "host-a", "up")


def slow(out: Path) -> None:
    """Slow the link."""
    for host in HOSTS:
        shape = ["dev", host, "root", "tbf", "rate", "200kbit", "burst", "4kb", "latency", "1s"]
        subprocess.run(["tc", "-n", host, "qdisc", "add", *shape], check=True)


def ranks_with_stacks(out: Path) -> set[str]:
    """Return the ranks that have printed their stacks."""
    text = "".join((out / f"{host}.log").read_text("utf-8", "replace") for host in HOSTS)
    return set(re.findall(r"The stacks of rank (\d+)", text))


def main() -> int:
    """Train undisturbed, with the link cut, and with it slowed. Return the exit status."""
    if os.geteuid() != 0 or shutil.which("ip") is None or shutil.which("tc") is None:
        print("Two hosts need root, and ip and tc (apt-get install iproute2).", file=sys.stderr)
        return NOT_POSSIBLE
    is_right = True
    with tempfile.TemporaryDirectory() as folder:
        with network():
            whole = train(Path(folder, "whole"), lambda out: None)
        print(f"undisturbed: exit statuses {whole.statuses}", flush=True)
        for name, disturb in {"cut": cut, "slowed": slow}.items():
            with network():
                ended = train(Path(folder, name), disturb)
            same = ended.weights == whole.weights and len(whole.weights) == 1
            alarms = sum(len(ranks_in(text)) for text in ended.logs.values())
            said = {line for text in ended.logs.values() for line in said_in(text)}
            print(f"{name}: exit statuses {ended.statuses}, ranks with stacks: {alarms}, ", end="")
            print(f"same weights: {same}", *sorted(said), sep="\n", flush=True)
            right = alarms == (RANKS if disturb is cut else 0)
            is_right &= same and right and ended.statuses == [0, 0]
            if not is_right:
                print(*(text[-3000:] for text in ended.logs.values()), sep="\n", file=sys.stderr)
    return 0 if is_right else 1


def ranks_in(text: str) -> set[str]:
    """Return the ranks whose stacks are in the output of a host."""
    return set(re.findall(r"The stacks of rank (\d+)", text))


def said_in(text: str) -> list[str]:
    """Return what the ranks of a host say of an alarm."""
    return re.findall(r"HangError: (.*)", text)


if __name__ == "__main__":
    sys.exit(main())
