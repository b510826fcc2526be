"""`MuonWithAdamW`: one optimizer that trains hidden matrices by Muon, and the rest by AdamW."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

_EMBEDDING: Final = re.compile(r"(^|[._])(emb|embed|embeddings?|pos|wte|wpe)($|[._])|embed")
_HEAD: Final = re.compile(r"(^|_)head$|^(classifier|unembed|unembedding)$")
_TOP_HEAD: Final = re.compile(r"(^|_)heads?$|^(classifier|unembed|unembedding|score|output)$")


def hidden_matrices(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters of `model` that Muon is for, by name: the matrices of hidden layers.

    As [its author](https://kellerjordan.github.io/posts/muon/) advises, embeddings and the last
    layer are not among them. An embedding is a torch.nn.Embedding, a matrix that shares its weight,
    or one with an embedding's name, such as `pos_emb`. The last layer is what
    `model.get_output_embeddings()` returns; or the modules with a name such as `head`, `lm_head` or
    `classifier`; or the last torch.nn.Linear, unless another one shares its weight with an
    embedding.
    """
    apart = {id(one) for module in _embeddings(model) for one in module.parameters()}
    apart |= {id(one) for module in _heads(model) for one in module.parameters()}
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if parameter.ndim == 2
        and parameter.is_floating_point()
        and id(parameter) not in apart
        and not _EMBEDDING.search(name.lower())
    }


def _embeddings(model: nn.Module) -> list[nn.Module]:
    return [one for one in model.modules() if isinstance(one, (nn.Embedding, nn.EmbeddingBag))]


def _heads(model: nn.Module) -> list[nn.Module]:
    get_head = getattr(model, "get_output_embeddings", None)
    if callable(get_head) and isinstance(head := get_head(), nn.Module):
        return [head]
    named = [
        module
        for name, module in model.named_modules()
        if (_TOP_HEAD.search(name.lower()) and "." not in name)
        or (isinstance(module, nn.Linear) and _HEAD.search(name.lower().rpartition(".")[2]))
    ]
    if named:
        return named
    linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
    embedded = {id(one) for module in _embeddings(model) for one in module.parameters()}
    is_tied = any(id(module.weight) in embedded for module in linears)
    return [] if is_tied else list(linears[-1:])


class MuonWithAdamW(Optimizer):
    """Trains matrices by torch's Muon, and all other parameters by AdamW.

    It is a single optimizer, so that schedules, checkpoints and callbacks treat it as any other.
    The option `use_muon` of a parameter group says whether Muon trains it. Groups that are added
    later are trained by AdamW unless they set it.

    Args:
        params: Parameters, or parameter groups. A group with both kinds becomes two groups.
        matrices: The parameters that Muon trains, of two dimensions each.
        lr: The learning rate. By default, Muon's steps are scaled so that it fits both.
        betas: AdamW's betas.
        eps: AdamW's epsilon.
        weight_decay: The decay of groups that state none.
        fused: Whether AdamW is the fused one.
        muon_lr: The learning rate of the matrices, instead of `lr`.
        adjust_lr_fn: `match_rms_adamw` scales Muon's steps to the size of AdamW's, and
            `original` as its author does.
        muon_options: Other options of torch.optim.Muon.

    Raises:
        ValueError: An option has a wrong value, or a matrix does not have two dimensions.
    """

    def __init__(
        self,
        params: Iterable[Any],
        matrices: Iterable[Tensor],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        fused: bool | None = None,
        muon_lr: float | None = None,
        adjust_lr_fn: str = "match_rms_adamw",
        **muon_options: Any,
    ) -> None:
        groups = list(params)
        if groups and not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        nothing = [nn.Parameter(torch.zeros(1, 1))]  # the parts get the groups when they step
        self._adamw = AdamW(nothing, lr, betas, eps, weight_decay, fused=fused)
        self._muon = torch.optim.Muon(
            nothing,
            lr=lr if muon_lr is None else muon_lr,
            weight_decay=weight_decay,
            adjust_lr_fn=adjust_lr_fn,
            **muon_options,
        )
        chosen = {id(matrix) for matrix in matrices}
        split = []
        for use_muon in (False, True):
            for group in groups:
                own = [one for one in group["params"] if (id(one) in chosen) == use_muon]
                if own:
                    split.append({**group, "params": own, "use_muon": use_muon})
        super().__init__(split, {"lr": lr})

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy needs."""
        return {**super().__getstate__(), "_adamw": self._adamw, "_muon": self._muon}

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, with the options of the optimizer that trains it.

        Raises:
            ValueError: It has `use_muon`, and a parameter that is no matrix.
        """
        use_muon = param_group.get("use_muon", False)
        defaults = (self._muon if use_muon else self._adamw).defaults
        super().add_param_group({**defaults, "use_muon": use_muon, **param_group})
        if use_muon:
            torch.optim.Muon(self.param_groups[-1]["params"])  # checks their dimensions

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Train all parameters that have a gradient by one step, and return the closure's loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part, use_muon in ((self._adamw, False), (self._muon, True)):
            part.state = self.state
            part.param_groups = [one for one in self.param_groups if one["use_muon"] == use_muon]
            part.step()
        return loss
