"""Serve a DagsHub in FOLDER until standard input ends: `serve_dagshub.py FOLDER`.

The tests of callback-dagshub use the same server, which passes requests on to a real MLflow server.
The script prints its address.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "packages" / "callback-dagshub" / "tests"))

from dagshub_server import DagsHub

from callback_mlflow.testing import MLflowServer

folder = Path(sys.argv[1])
folder.mkdir()
mlflow = MLflowServer(folder)
mlflow.start()
try:
    mlflow.wait()
    with DagsHub(mlflow.uri) as dagshub:
        print(dagshub.url, flush=True)
        sys.stdin.read()
finally:
    mlflow.stop()
