"""The checks that need a GPU run in a small form on the CPU, and say so where there is no GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
from synchronization import BEGIN, END, waits_in

SCRIPT = Path(__file__).with_name("gpu.sh")
PARTS = ["precision", "synchronization", "throughput", "callbacks", "kills"]


def run(*options: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(map(os.path.abspath, sys.path))
    hidden = {"PYTHON": sys.executable, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        [str(SCRIPT), *options], env={**os.environ, **hidden}, capture_output=True, text=True
    )


def test_without_a_gpu_the_checks_say_that_they_did_not_run() -> None:
    done = run()
    assert done.returncode == 77
    assert "GPU" in done.stderr


def test_waits_and_copies_to_the_host_are_counted_between_the_marks() -> None:
    names = [
        "cudaStreamSynchronize",
        BEGIN,
        "cudaLaunchKernel",
        "Memcpy HtoD (Pinned -> Device)",
        "cudaStreamSynchronize",
        "Memcpy DtoH (Device -> Pageable)",
        END,
        "cudaDeviceSynchronize",
    ]
    events = [
        SimpleNamespace(name=name, time_range=SimpleNamespace(start=start))
        for start, name in enumerate(names)
    ]
    assert waits_in(events) == Counter([names[4], names[5]])


@pytest.mark.slow
def test_each_part_runs_on_the_cpu_and_is_in_the_table_at_the_end() -> None:
    done = run("--cpu")
    lines = [line.split() for line in done.stdout.splitlines()[-len(PARTS) :]]
    assert [(line[0], line[2]) for line in lines] == [(part, "passed") for part in PARTS]
    assert done.returncode == 0, done.stderr
