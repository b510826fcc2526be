"""A training that kills itself, and resumes from its newest checkpoint.

The arguments are OUTPUT_DIR DELIVERY KILL_AT. If it is not killed, it prints its logs.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from tensorboard_for_tests import read

from callback_tensorboard import TensorBoardCallback
from trainer_torch.testing import At, small_trainer


def main(output_dir: Path, delivery: Any, kill_at: int) -> None:
    def kill() -> None:
        """Kill this process once TensorBoard has the point of the previous step."""
        while True:
            for directory in output_dir.glob("runs/*"):
                found = read(directory)
                written = "train/loss" in found.Tags()["scalars"]
                if written and found.Scalars("train/loss")[-1].step >= kill_at - 1:
                    os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(0.05)

    trainer = small_trainer(
        output_dir,
        TensorBoardCallback(delivery=delivery),
        At(kill_at, kill),
        num_train_epochs=6,
        save_strategy="steps",
        save_steps=5,
    )
    trainer.train(resume_from_checkpoint=any(output_dir.glob("checkpoint-*")))
    print(json.dumps(trainer.state.log_history))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
