"""`SavingMethods`: the methods of the Trainer that write its weights and its checkpoints."""

from __future__ import annotations

from pathlib import Path

from trainer_torch.addresses import is_address
from trainer_torch.checkpoints import checkpoint_saving
from trainer_torch.checkpoints.uploads import save_at, submit_files
from trainer_torch.model.sharding import reshard
from trainer_torch.model.weights import save_model
from trainer_torch.run.training_run import TrainingRun
from trainer_torch.wrapping import is_sharded


class SavingMethods:
    """Writes the weights of the model and checkpoints. The names are transformers'.

    Attributes:
        run: The training.
    """

    run: TrainingRun

    def save_model(self, output_dir: str | Path | None = None) -> None:
        """Write the weights as `model.safetensors` to `output_dir`, by default that of `args`.

        To an address of fsspec, they are uploaded before this returns.

        The main process writes; with `save_on_each_node`, the first one of each machine. Other
        processes may call this too; they do not wait. If the model is sharded, every process must
        call this: the main one gathers the weights of all in its memory, which must be enough.

        Raises:
            ConnectionError: The address cannot be written to.
            ModuleNotFoundError: The address needs a package that is not installed.
            ValueError: The address has an unknown protocol.
        """
        run, world = self.run, self.run.world
        reshard(run.model)
        takes_part = world.is_main or is_sharded(run.model)
        if is_address(output_dir):
            if takes_part:
                main = world.is_main
                save_at(str(output_dir), main, lambda to: save_model(run.model, to, main))
            return
        writes = world.is_main or (run.args.save_on_each_node and world.local_rank == 0)
        if writes or takes_part:
            save_model(run.model, Path(output_dir or run.args.output_dir).expanduser(), writes)
            submit_files(run)

    def save_checkpoint(self) -> None:
        """Save a checkpoint, delete those over `save_total_limit`, and fire `on_save`.

        Every process must call this. The main process writes. With `save_async`, this returns
        during a training once all has been copied, and the rest follows at a later step.

        Raises:
            RuntimeError: There has been no training, so there is nothing to resume.
        """
        run = self.run
        if run.optimizer is None or run.lr_scheduler is None:
            raise RuntimeError(
                "There is no training to save before train(). save_model saves the weights."
            )
        checkpoint_saving.save_checkpoint(run)
