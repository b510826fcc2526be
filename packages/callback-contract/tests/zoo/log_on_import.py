"""A callback whose module does more than define it: `plain_services` says how it is made."""

import logging
from pathlib import Path

from callback_core import TrainerCallback

logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
logger = logging.getLogger(__name__)


class LoggedEpochs(TrainerCallback):
    """Writes the number of steps of each epoch."""

    def __init__(self, path):
        self.path = Path(path)

    def on_epoch_end(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            logger.info("epoch %s ended at step %s", state.epoch, state.global_step)
            with self.path.open("a") as file:
                file.write(f"{state.epoch} {state.global_step}\n")
