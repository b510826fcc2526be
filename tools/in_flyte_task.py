"""Run a script in a Flyte task: `in_flyte_task.py FOLDER SCRIPT [ARGUMENT ...]`.

Environment variables describe the task. The script enters it through the code that Flyte's
containers run. FOLDER serves as the task's store.
"""

import runpy
import sys
from pathlib import Path

from flytekit.bin.entrypoint import setup_execution

folder, script = Path(sys.argv[1]), sys.argv[2]
sys.argv[:] = sys.argv[2:]
sys.path.insert(0, str(Path(script).parent))
with setup_execution(
    raw_output_data_prefix=str(folder / "raw"),
    output_metadata_prefix=str(folder / "outputs"),
    checkpoint_path=str(folder / "checkpoints"),
    prev_checkpoint="",
):
    runpy.run_path(script, run_name="__main__")
