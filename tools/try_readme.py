"""Run the README example of the core with callback-core and callback-mlflow only: `try_readme.py`.

Their wheels from dist/ are installed into a new environment, which has neither torch nor
transformers. The script checks that MLflow's store has each logged step once.
"""

import sqlite3
import sys
import tempfile
from contextlib import closing
from pathlib import Path

from environments import Environment
from trackers import ROOT, TRACKERS

README = ROOT / "packages/callback-core/README.md"
STEPS = list(range(8, 81, 8))


def main() -> None:
    """Run the example, and exit with 1 if its points are not in the store."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        environment = Environment(folder / "environment")
        mlflow = TRACKERS["mlflow"]
        environment.install_ours(["callback-core", mlflow.package], mlflow.lock)
        if unwanted := {"torch", "transformers"} & environment.distributions().keys():
            sys.exit(f"installed without being asked for: {', '.join(sorted(unwanted))}")
        code = README.read_text(encoding="utf-8").partition("```python\n")[2].partition("```")[0]
        variables = {"HOME": temporary}
        environment.run("-c", code, variables=variables, cwd=folder, check=True)
        # On a busy machine, MLflow may take longer to open than the training waits for it.
        replay = ("-m", "callback_core.tracking.replay", "linear", "--patience", "500")
        environment.run(*replay, variables=variables, cwd=folder, check=True)
        with closing(sqlite3.connect(folder / "mlflow.db")) as database:
            query = "SELECT step FROM metrics WHERE key LIKE '%loss' ORDER BY step"
            steps = [step for (step,) in database.execute(query)]
    if steps != STEPS:
        sys.exit(f"the store has losses at the steps {steps}, not {STEPS}")
    print("the example of the core's README runs without torch, and each step is stored once")


if __name__ == "__main__":
    main()
