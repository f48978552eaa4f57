"""cgan_kd: ratio net and its softplus loss with penalty."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from kdbench.methods.cgan_kd.networks import Condition
from kdbench.methods.cgan_kd.ratio import RatioNet, ratio_terms

GIVEN = ("feat_*", "class_ids", "label_embedding", "label_emb.*", "main.*")


class _Stored:
    """The stored weights, which lie at the root of a case."""

    def __init__(self, case: Any) -> None:
        self.case = case

    def into(self, net: RatioNet) -> RatioNet:
        for part in ("main", "label_emb"):
            if getattr(net, part) is not None:
                self.case.bind(getattr(net, part), f"{part}.")
        return net


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    classes = scalars["kind"] == "classification"
    told = tensors["class_ids" if classes else "label_embedding"]
    features = tensors["feat_real"].shape[1]
    net = RatioNet(Condition(scalars["K"], classes), features, scalars["widths"], scalars["dropout"])
    net = _Stored(case).into(net)
    ratios = {f"ratio_{kind}": net(tensors[f"feat_{kind}"], told) for kind in ("real", "fake")}
    terms = ratio_terms(ratios["ratio_real"], ratios["ratio_fake"], scalars["lambda_penalty"])
    sp_term, penalty = terms["softplus"], terms["penalty"]
    return {**ratios, "sp_term": sp_term, "penalty": penalty, "loss": sp_term + penalty}
