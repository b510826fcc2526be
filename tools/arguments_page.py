"""Check `docs/arguments.md` against the code; `--write` renews it.

    python3.11 tools/arguments_page.py [--write]

The page has each argument of transformers, and what becomes of it here. It comes from the classes
of arguments in `trainer_torch`, and from `TRANSFORMERS` and `DIFFERENCES` below. It needs neither
torch nor transformers: `tests/peers/test_arguments.py` compares the page with transformers itself.
"""

import argparse
import ast
import re
import runpy
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "arguments.md"
SOURCE = ROOT / "packages" / "trainer-torch" / "trainer_torch" / "arguments"

VERSION = "5.24"
TRANSFORMERS = """
output_dir = None
per_device_train_batch_size = 8
num_train_epochs = 3.0
max_steps = -1
learning_rate = 5e-05
lr_scheduler_type = 'linear'
lr_scheduler_kwargs = None
warmup_steps = 0
optim = 'adamw_torch_fused'
optim_args = None
weight_decay = 0.0
adam_beta1 = 0.9
adam_beta2 = 0.999
adam_epsilon = 1e-08
optim_target_modules = None
gradient_accumulation_steps = 1
average_tokens_across_devices = True
max_grad_norm = 1.0
label_smoothing_factor = 0.0
bf16 = False
fp16 = False
bf16_full_eval = False
fp16_full_eval = False
tf32 = None
activation_checkpointing = None
activation_checkpointing_kwargs = None
gradient_checkpointing = None
gradient_checkpointing_kwargs = None
torch_compile = False
torch_compile_backend = None
torch_compile_mode = None
use_liger_kernel = False
liger_kernel_config = None
use_cache = False
neftune_noise_alpha = None
torch_empty_cache_steps = None
auto_find_batch_size = False
logging_strategy = 'steps'
logging_steps = 500
logging_first_step = False
log_on_each_node = True
logging_nan_inf_filter = True
include_num_input_tokens_seen = 'no'
log_level = 'passive'
log_level_replica = 'warning'
disable_tqdm = None
report_to = 'none'
run_name = None
project = 'huggingface'
trackio_space_id = None
trackio_bucket_id = None
trackio_static_space_id = None
eval_strategy = 'no'
eval_steps = None
eval_delay = 0
per_device_eval_batch_size = 8
prediction_loss_only = False
eval_on_start = False
eval_do_concat_batches = True
eval_use_gather_object = False
eval_accumulation_steps = None
include_for_metrics = []
batch_eval_metrics = False
save_only_model = False
save_strategy = 'steps'
save_steps = 500
save_on_each_node = False
save_total_limit = None
enable_jit_checkpoint = False
push_to_hub = False
hub_token = None
hub_private_repo = None
hub_model_id = None
hub_strategy = 'every_save'
hub_always_push = False
hub_revision = None
load_best_model_at_end = False
metric_for_best_model = None
greater_is_better = None
ignore_data_skip = False
restore_callback_states_from_checkpoint = False
full_determinism = False
seed = 42
data_seed = None
use_cpu = False
accelerator_config = None
parallelism_config = None
dataloader_drop_last = False
dataloader_num_workers = 0
dataloader_pin_memory = True
dataloader_persistent_workers = False
dataloader_prefetch_factor = None
dataloader_multiprocessing_context = None
dataloader_in_order = True
remove_unused_columns = True
label_names = None
train_sampling_strategy = 'random'
length_column_name = 'length'
ddp_find_unused_parameters = None
ddp_bucket_cap_mb = None
ddp_broadcast_buffers = None
ddp_static_graph = None
ddp_backend = None
ddp_timeout = 1800
fsdp = None
fsdp_config = None
deepspeed = None
debug = ''
skip_memory_metrics = True
do_train = False
do_eval = False
do_predict = False
resume_from_checkpoint = None
local_rank = -1
"""
"""The arguments of transformers, in its order, with their defaults."""

DIFFERENCES = {
    "output_dir": "`None` becomes `trainer_output` in both. An address such as `s3://bucket/run` "
    "becomes `remote_output_dir`: everything is uploaded there during the training, which can also "
    "resume from there.",
    "lr_scheduler_kwargs": "Options that the schedule does not have are refused.",
    "optim": "Optimizers of other packages are passed as `optimizers=(optimizer, None)`. Adafactor "
    "is torch's.",
    "optim_args": "Options that the optimizer does not have are refused.",
    "disable_tqdm": "`None` means false, not what the level of a logger says.",
    "include_num_input_tokens_seen": "Several processes add up their counts at logs, checkpoints "
    "and the end, not at each step.",
    "fsdp": "FSDP2 only. A single process keeps the whole model, with a warning.",
    "fsdp_config": "`state_dict_type` is always `SHARDED_STATE_DICT`; `save_model` gathers the "
    "weights. Unknown keys are refused. A warning names those that have no effect in FSDP2.",
    "log_level": "It holds in `train`, `evaluate` and `predict`. Then the level before is "
    "restored.",
    "skip_memory_metrics": "`False` adds them to the log at the end of training, not to "
    "evaluations, and without those of the construction of the Trainer.",
    "report_to": "`all` means the installed tracker packages of this project that are configured.",
    "save_strategy": "With `best`, a checkpoint that a callback asks for is saved too.",
    "save_total_limit": "With 1, the last checkpoint is deleted at the end only if the best one is "
    "loaded. In transformers, it always is if there is a best one.",
    "save_only_model": "transformers resumes from them with a new optimizer.",
    "debug": "`tpu_metrics_debug` is refused, and training goes on.",
    "bf16": "Autocast is around the loss too, not only around the model.",
    "fp16": "It works on the CPU too. Autocast is around the loss too, not only around the model.",
    "bf16_full_eval": "Afterwards, the weights are those of before.",
    "fp16_full_eval": "Afterwards, the weights are those of before.",
    "tf32": "Afterwards, torch's settings are those of before. `torch_compile` does not set it.",
    "activation_checkpointing": "Any model with blocks will do. It ends with the training.",
    "activation_checkpointing_kwargs": "`modules` names classes of blocks.",
    "torch_compile": "The model itself is compiled, not a wrapper, so evaluations run compiled "
    "too. `tf32` stays as it is.",
    "torch_empty_cache_steps": "In transformers, it is emptied within these steps.",
    "auto_find_batch_size": "In transformers, a step gets fewer samples, and the training starts "
    "again, also when memory runs out in a callback. Several processes are refused.",
    "dataloader_drop_last": "Evaluations keep theirs. In transformers, they drop them too.",
    "dataloader_pin_memory": "Without an accelerator, it has no effect, and keeps its value.",
    "remove_unused_columns": "Only the default collator does so, and a warning names them. A model "
    "that takes any keyword, a `compute_loss` and a `data_collator` get all columns.",
    "full_determinism": "Afterwards, torch's settings are those of before. Kernels are launched "
    "asynchronously as ever.",
    "enable_jit_checkpoint": "SIGINT and other signals that end a training count too, not only "
    "SIGTERM. The checkpoint is read back.",
    "seed": "Process r is seeded with `seed` + r.",
    "ddp_find_unused_parameters": "`None` means false. In transformers, it means true for models "
    "of plain PyTorch, which costs a search in each backward pass.",
    "ddp_static_graph": "With accumulation, gradients are averaged after each batch, because "
    "DistributedDataParallel fails otherwise.",
    "resume_from_checkpoint": "`train()` takes it as its default. In transformers, only scripts "
    "read it.",
}
"""In what the arguments that have an effect in both differ."""

INTRODUCTION = """\
# Arguments

`TrainingArguments` has the {count} arguments of transformers {version}, under the same names. This
page comes from the code: `python3.11 tools/arguments_page.py --write`.

| status | arguments | meaning |
|---|--:|---|
| have | {have} | as in transformers |
| differs | {differs} | as in transformers, except for what the table says |
| no effect | {no_effect} | accepted with any value; the table says why nothing depends on it |
| refused | {refused} | accepted at its default; the table says what to do instead |

`TrainingArguments.from_args()` reads the arguments from a command line and from files.
`args.changed()` returns those that differ from their defaults. For a name that transformers
has dropped, such as `evaluation_strategy`, the error says what to write now.

| argument | default of transformers | default here | status | |
|---|---|---|---|---|
"""


def main() -> int:
    """Check the page, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="renew the page")
    if parser.parse_args().write:
        PAGE.write_text(page(), "utf-8")
    if not PAGE.exists() or PAGE.read_text("utf-8") != page():
        name = PAGE.relative_to(ROOT)
        print(f"{name}: out of date: python3.11 tools/arguments_page.py --write", file=sys.stderr)
        return 1
    return 0


def page() -> str:
    """Return the whole page."""
    cells = list(rows())
    counts = Counter(row[3] for row in cells)
    return INTRODUCTION.format(
        count=len(cells),
        version=VERSION,
        have=counts["have"],
        differs=counts["differs"],
        no_effect=counts["no effect"],
        refused=counts["refused"],
    ) + "".join(f"| {' | '.join(row)} |\n" for row in cells)


def rows() -> Iterator[tuple[str, str, str, str, str]]:
    """Yield the name of each argument, both defaults, the status and a sentence.

    Raises:
        ValueError: There is no field for an argument; or one that differs has no effect at all.
    """
    defaults, sentences = fields_and_sentences()
    without_effect = runpy.run_path(str(SOURCE / "kept_arguments.py"))["WITHOUT_EFFECT"]
    unsupported = runpy.run_path(str(SOURCE / "unsupported_arguments.py"))
    refused = {field.name for field in fields(unsupported["UnsupportedArguments"])}
    for line in TRANSFORMERS.strip().splitlines():
        name, _, default = line.partition(" = ")
        if name not in defaults:
            raise ValueError(f"TrainingArguments has no field {name}")
        if name in DIFFERENCES and (name in without_effect or name in refused):
            raise ValueError(f"{name} is among the DIFFERENCES, but has no effect")
        text, status = sentences.get(name, ""), "have"
        if name in without_effect:
            text, status = without_effect[name], "no effect"
        elif name in refused:
            text, status = unsupported["instead_of"](name), "refused"
        elif name in DIFFERENCES:
            text, status = f"{text} {DIFFERENCES[name]}", "differs"
        yield f"`{name}`", f"`{default}`", f"`{defaults[name]}`", status, text.replace("|", "\\|")


def fields_and_sentences() -> tuple[dict[str, str], dict[str, str]]:
    """Return the defaults of all arguments, as code, and the sentences about them in docstrings."""
    defaults: dict[str, str] = {}
    sentences: dict[str, str] = {}
    for path in sorted(SOURCE.glob("*arguments*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ClassDef) and "dataclass" in map(
                decorator, node.decorator_list
            ):
                sentences |= dict(described(ast.get_docstring(node) or ""))
                for item in node.body:
                    if isinstance(item, ast.AnnAssign) and item.value is not None:
                        defaults[ast.unparse(item.target)] = default_in(item.value)
    return defaults, sentences


def decorator(node: ast.expr) -> str:
    """Return the name of a decorator, without its arguments."""
    return ast.unparse(node.func if isinstance(node, ast.Call) else node)


def default_in(value: ast.expr) -> str:
    """Return the code of a default. That of `field(default_factory=list)` is `[]`."""
    if isinstance(value, ast.Call):
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in value.keywords}
        made = {"list": "[]", "dict": "{}"}
        return given.get("default") or made.get(given.get("default_factory", ""), "")
    return ast.unparse(value)


def described(docstring: str) -> Iterator[tuple[str, str]]:
    """Yield each argument in a docstring with the first sentence about it."""
    section = docstring.partition("\nArgs:\n")[2].partition("\n\n")[0]
    for name, text in re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", section, re.M):
        yield name, re.split(r"(?<=\.)\s(?=[A-Z`])", " ".join(text.split()))[0]


if __name__ == "__main__":
    sys.exit(main())
