"""`ArgumentForms`: arguments as a dict or JSON, and from a command line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, Self

from callback_core import json_value
from trainer_torch.arguments.kept_arguments import KeptArguments
from trainer_torch.arguments.process_role import ProcessRole
from trainer_torch.arguments.unsupported_arguments import UnsupportedArguments


class ArgumentForms(KeptArguments, UnsupportedArguments, ProcessRole):
    """Reads arguments from a command line, and writes them as a dict or JSON."""

    @classmethod
    def from_args(cls, args: Sequence[str] | None = None) -> Self:
        """Return the arguments that a command line and files describe.

            TrainingArguments.from_args(["--config", "run.yaml", "--learning-rate", "1e-3"])

        The command line takes precedence over the files, and later files over earlier ones. A file
        is YAML or JSON. Names may have dashes or underscores. Lists and mappings are JSON.
        `--use-cpu` means true, `--no-use-cpu` false. `--help` shows all arguments. This needs the
        extra `cli`: `pip install 'trainer-torch[cli]'`.

        Args:
            args: The command line, without the name of the program; by default that of this one.

        Raises:
            ImportError: The extra `cli` is not installed.
            SystemExit: The command line is wrong; the error is on standard error. Or it asks for
                help.
        """
        from trainer_torch.arguments.command_line import parse  # here, because few programs need it

        return parse(cls, args)

    def to_dict(self) -> dict[str, Any]:
        """Return all arguments that have an effect, as values that JSON can represent.

        Those without effect are among them if they were set. Arguments of a subclass may be of any
        type: enums become their values, dtypes of torch their names, as in transformers, and what
        JSON does not have becomes text.
        """
        left_out = {item.name for item in fields(UnsupportedArguments)} | self.kept_at_default()
        names = [item.name for item in fields(self) if item.name not in left_out]
        return {name: json_value(getattr(self, name)) for name in names}

    def to_sanitized_dict(self) -> dict[str, Any]:
        """Return the arguments and the batch sizes as numbers, truth values and text.

        TensorBoard's `add_hparams` takes these types.
        """
        sizes = {name: getattr(self, name) for name in ("train_batch_size", "eval_batch_size")}
        return {
            name: value if isinstance(value, (bool, int, float, str)) else str(value)
            for name, value in {**self.to_dict(), **sizes}.items()
        }

    def to_json_string(self) -> str:
        """Return all arguments as indented JSON."""
        return json.dumps(self.to_dict(), indent=2)
