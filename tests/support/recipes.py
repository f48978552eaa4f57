"""Fields of made-up records: a teacher, a protocol, plain, and one that was tuned."""

from __future__ import annotations

from typing import Any

TEACHER = {"role": "image", "arch": "resnet32x4", "source": "auto", "weights_sha256": "a" * 64, "val_metric": 80.0}


def protocol(epochs: int = 60, teacher: str = "auto", **changed: Any) -> dict[str, Any]:
    pair = {"student": {"net": "s", "input": "image"}, "teachers": {"image": {"net": "t", "weights": teacher}}}
    whole = {"data": {"source": "digits"}, "pair": pair, "train": {"epochs": epochs}, "score": {"primary": "top1"}}
    return whole | changed


def plain(**fields: Any) -> dict[str, Any]:
    return {"method__name": "plain", "models__teachers": [], **fields}


def tuned(weight: float) -> dict[str, Any]:
    return {
        "method__name": "at", "method__params": {"attention_weight": weight}, "custom": weight != 1000.0,
        "provenance__command": f"kdbench evaluate --method at --task t --seed 0 method.attention_weight={weight}",
    }  # fmt: skip
