"""Arguments as a trainer would make them, for callbacks that read them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any


@dataclass
class Arguments:
    """transformers' defaults of all that callbacks read."""

    output_dir: str | None = None
    run_name: str | None = None
    logging_strategy: str = "steps"
    logging_first_step: bool = False
    eval_strategy: str = "no"
    eval_delay: float = 0
    save_strategy: str = "steps"
    load_best_model_at_end: bool = False
    metric_for_best_model: str | None = None
    greater_is_better: bool | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def to_json_string(self) -> str:
        return json.dumps(self.to_dict())
