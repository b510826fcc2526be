"""Damage one file of a checkpoint at a time, and see whether it is still resumed from.

    python packages/trainer-torch/tests/corruptions.py [--corruptions 200] [--seed 0]

A small training saves two checkpoints. Of a copy of the newer one, one file is damaged: a byte is
flipped, the file is cut, missing, empty or longer by a byte, or that of the older checkpoint takes
its place. Damage is recognized if `find_checkpoint`, by which a training resumes, returns the
older checkpoint, which is complete. The result is a table by kinds of files. The exit status is 1
if damage is not recognized.
"""

from __future__ import annotations

import argparse
import logging
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from small import trainer
from training_to_kill import Stream

from trainer_torch import WeightAveragingCallback
from trainer_torch.checkpoints.selection import find_checkpoint

Damage = Callable[[Path, Path, random.Random], None]


def flipped(path: Path, older: Path, choice: random.Random) -> None:
    """Change a bit of one byte."""
    content = bytearray(path.read_bytes())
    content[choice.randrange(len(content))] ^= 1 << choice.randrange(8)
    path.write_bytes(content)


def cut(path: Path, older: Path, choice: random.Random) -> None:
    """Leave out the end."""
    content = path.read_bytes()
    path.write_bytes(content[: choice.randrange(1, len(content))])


def missing(path: Path, older: Path, choice: random.Random) -> None:
    """Delete it."""
    path.unlink()


def empty(path: Path, older: Path, choice: random.Random) -> None:
    """Leave nothing in it."""
    path.write_bytes(b"")


def longer(path: Path, older: Path, choice: random.Random) -> None:
    """Add a byte."""
    path.write_bytes(path.read_bytes() + bytes([choice.randrange(256)]))


def swapped(path: Path, older: Path, choice: random.Random) -> None:
    """Put the file of the older checkpoint in its place."""
    shutil.copyfile(older, path)


DAMAGES: tuple[Damage, ...] = (flipped, cut, missing, empty, longer, swapped)


def save_two(directory: Path) -> tuple[Path, Path]:
    """Train, and return the two checkpoints: with each kind of file that the Trainer writes."""
    trainer(
        directory,
        WeightAveragingCallback(0.9),
        given={"train_dataset": Stream()},
        max_steps=4,
        save_strategy="steps",
        save_steps=2,
    ).train()
    return directory / "checkpoint-2", directory / "checkpoint-4"


def check(corruptions: int, choice: random.Random) -> tuple[Counter[str], Counter[str]]:
    """Return how many files were damaged, and how many of these were recognized, by name.

    Each kind of damage of each file comes once before any comes again.
    """
    done: Counter[str] = Counter()
    recognized: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        older, newer = save_two(Path(folder))
        whole = shutil.copytree(newer, Path(folder, "whole"))
        names = sorted(path.name for path in whole.iterdir())
        turns: list[Any] = []
        for _ in range(corruptions):
            if not turns:
                turns = [(name, damage) for name in names for damage in DAMAGES]
                choice.shuffle(turns)
            name, damage = turns.pop()
            before = (whole / name).read_bytes()
            if damage is swapped and (older / name).read_bytes() == before:
                damage = flipped  # the two files are the same
            damage(newer / name, older / name, choice)
            is_recognized = find_checkpoint(True, folder) == older
            if not is_recognized:
                print(f"not recognized: {name} {damage.__name__}", file=sys.stderr)
            done[name] += 1
            recognized[name] += is_recognized
            shutil.rmtree(newer)
            shutil.copytree(whole, newer)
        assert find_checkpoint(True, folder) == newer
    return done, recognized


def main(arguments: Sequence[str] | None = None) -> int:
    """Damage files, and print a table. Return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corruptions", type=int, default=200, help="how many (default: 200)")
    parser.add_argument("--seed", type=int, default=0, help="of the damages (default: 0)")
    options = parser.parse_args(arguments)
    logging.disable(logging.WARNING)  # one for each damage
    done, recognized = check(options.corruptions, random.Random(options.seed))
    print("| file | damaged | recognized |")
    print("|---|--:|--:|")
    for name in sorted(done):
        print(f"| `{name}` | {done[name]} | {recognized[name]} |")
    print(f"| all | {done.total()} | {recognized.total()} |")
    return 0 if recognized == done else 1


if __name__ == "__main__":
    sys.exit(main())
