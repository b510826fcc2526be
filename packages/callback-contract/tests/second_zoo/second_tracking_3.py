# ruff: noqa: RUF012
"""Trackers on `callback_core.tracking` that are right."""

import json
import shutil
import uuid
from contextlib import contextmanager
from pathlib import Path

from second_specimens import correct
from second_store import Server, SqliteTracker, WebTracker, server_for
from second_tracking_1 import BASIC, InSqlite, InWeb

from callback_contract import RecordedRun, TrackerContract
from callback_core.tracking import Limits, Tracker, TrackerCallback


class Users:
    """The run that the user has open, as an SDK has a current one."""

    run = None


class DatabaseTracker(SqliteTracker):
    name = "zoo_database"

    def adopt(self):
        return Users.run


class DatabaseCallback(TrackerCallback):
    """Sends a training to a database; `on_error` is a property."""

    def __init__(self, path, **options):
        super().__init__(DatabaseTracker(path), **options)

    @property
    def on_error(self):
        return "isolate"


@correct("a database that rewinds and adopts; on_error is a property")
class GoodDatabase(InSqlite):
    __test__ = False
    capabilities = InSqlite.capabilities | {"adopts"}

    def make(self, output_dir):
        return DatabaseCallback(output_dir / "runs.db")

    @contextmanager
    def users_run(self, output_dir):
        class New:
            run_id = rewind_to = None

        own = SqliteTracker(output_dir / "runs.db")
        Users.run = own.open(New)
        try:
            yield Users.run
        finally:
            Users.run = None
            own.close("finished")


class KeptSecretTracker(WebTracker):
    name = "zoo_kept_secret"
    limits = Limits(batch_size=7, non_finite=False)


@correct("a server that may be down and is sent small batches; its key stands in no file")
class GoodWeb(InWeb):
    __test__ = False

    def make(self, output_dir):
        return TrackerCallback(KeptSecretTracker(server_for(output_dir).url, Server.key))

    def make_unreachable(self, output_dir):
        url = server_for(output_dir, mode="broken").url
        return TrackerCallback(KeptSecretTracker(url), flush_limit=self.flush_limit)


class CurveTracker(Tracker):
    """Keeps a file for each curve, by the name that was logged, with text and checkpoints."""

    name = "zoo_curves"
    limits = Limits(text=True)
    rewinds = True

    def __init__(self, root):
        self.root = str(root)

    @property
    def takes_checkpoints(self):
        return True

    def settings(self):
        return {"root": self.root}

    def open(self, opening):
        self.id = opening.run_id or f"{opening.time:.6f}-{uuid.uuid4().hex[:6]}"
        self.folder = Path(self.root) / self.id
        for part in ("curves", "text", "files"):
            (self.folder / part).mkdir(parents=True, exist_ok=True)
        if opening.rewind_to is not None:
            for file in self.folder.glob("*/*.jsonl"):
                lines = file.read_text().splitlines(keepends=True)
                kept = [line for line in lines if json.loads(line)[0] < opening.rewind_to]
                file.write_text("".join(kept))
        (self.folder / "status").write_text("running")
        return self.id

    def log_parameters(self, parameters):
        with (self.folder / "parameters.json").open("w") as file:
            json.dump(dict(parameters), file, default=str)

    def log_metrics(self, points):
        self._add("curves", points)

    def log_text(self, points):
        self._add("text", points)

    def log_files(self, upload):
        shutil.copytree(upload.path, self.folder / "files" / upload.name, dirs_exist_ok=True)

    def close(self, status):
        (self.folder / "status").write_text(status)

    def _add(self, part, points):
        for point in points:
            with (self.folder / part / f"{own_name(point.name)}.jsonl").open("a") as file:
                file.write(json.dumps([point.step, point.value]) + "\n")


def own_name(name):
    """Return the name of a file: `train/loss` is `loss`, `eval/loss` is `eval_loss`."""
    return name.removeprefix("train/").replace("/", "_")


@correct("names are as they are logged; text, checkpoints, NaN")
class GoodCurves(TrackerContract):
    __test__ = False
    contract = (2, 0)
    capabilities = BASIC | {"rewinds", "non_finite", "text", "files"}

    def make(self, output_dir):
        return TrackerCallback(CurveTracker(output_dir / "curves"))

    def stored_name(self, name):
        return name.replace("/", "_")

    def read(self, output_dir):
        runs = []
        for folder in sorted((output_dir / "curves").glob("*/")):
            found = {}
            for part in ("curves", "text"):
                found[part] = {
                    file.stem: [tuple(json.loads(line)) for line in file.open()]
                    for file in (folder / part).iterdir()
                }
            parameters = folder / "parameters.json"
            files = (folder / "files").rglob("*")
            runs.append(
                RecordedRun(
                    id=folder.name,
                    parameters=json.loads(parameters.read_text()) if parameters.exists() else {},
                    points=found["curves"],
                    text=found["text"],
                    files=frozenset(
                        f.relative_to(folder / "files").as_posix() for f in files if f.is_file()
                    ),
                    status=(folder / "status").read_text(),
                )
            )
        return runs


class MinimalTracker(Tracker):
    """Appends lines, and can tell what it has from what it is sent again."""

    name = "zoo_minimal"

    def __init__(self, path):
        self.path = Path(path)

    def settings(self):
        return {"path": str(self.path)}

    def open(self, opening):
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.run = opening.run_id or uuid.uuid4().hex
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        self.has = {line for line in lines if json.loads(line)[0] == self.run}
        if not self.has:
            self._add([[self.run]])
        return self.run

    def log_parameters(self, parameters):
        pass

    def log_metrics(self, points):
        self._add([[self.run, p.name, p.step, float(p.value), p.time] for p in points])

    def close(self, status):
        pass

    def _add(self, rows):
        lines = [json.dumps(row) for row in rows]
        with self.path.open("a") as file:
            file.writelines(f"{line}\n" for line in lines if line not in self.has)
        self.has.update(lines)


@correct("keeps curves and nothing else: neither arguments nor how a training ended")
class GoodMinimal(TrackerContract):
    __test__ = False
    contract = (2, 0)
    capabilities = {"state", "resume", "redacts", "non_finite"}

    def make(self, output_dir):
        return TrackerCallback(MinimalTracker(output_dir / "points.txt"), delivery="inline")

    def read(self, output_dir):
        runs = {}
        file = output_dir / "points.txt"
        for line in file.read_text().splitlines() if file.exists() else ():
            run_id, *point = json.loads(line)
            run = runs.setdefault(run_id, RecordedRun(run_id, {}, {}))
            if point:
                name, step, value, _ = point
                run.points.setdefault(name, []).append((step, value))
        return list(runs.values())
