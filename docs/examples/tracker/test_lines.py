from callback_contract import TrackerContract
from lines import LinesCallback
from read_lines import read_lines


class TestLines(TrackerContract):
    contract = (2, 0)
    capabilities = {"state", "resume", "status", "parameters", "redacts", "scalars", "unreachable"}
    flush_limit = 0.5

    def make(self, output_dir):
        return LinesCallback(output_dir / "runs.jsonl")

    def make_unreachable(self, output_dir):
        (output_dir / "away").touch()  # a file where the directory is to be
        return LinesCallback(output_dir / "away" / "runs.jsonl", flush_limit=self.flush_limit)

    def deliver_later(self, output_dir):
        (output_dir / "away").unlink()
        (output_dir / "away").mkdir()
        super().deliver_later(output_dir)

    def read(self, output_dir):
        return [run for path in output_dir.rglob("runs.jsonl") for run in read_lines(path)]
