"""Files that hold a network: how each is written and read. Needs no torch until one is."""

from __future__ import annotations

import importlib.util
import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pydantic import ValidationError

from kdbench.base.errors import UserError
from kdbench.deploy.about import KEY, About
from kdbench.deploy.find import TENSORS

if TYPE_CHECKING:
    from torch import Tensor

    from kdbench.deploy.module import Deployed

    Answers = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Format:
    """A kind of file.

    Attributes:
        write: the content of a file.
        read: a file as a function from raw rows to answers, by the file alone.
        needs: packages beside kdbench's own, of the extra ``export``.
        graph: whether the file holds what is computed; else a net of kdbench's zoo must be built again by its name.
    """

    suffix: str
    write: Callable[[Deployed], bytes]
    read: Callable[[Path], Answers]
    needs: tuple[str, ...] = ()
    graph: bool = True

    def require(self, name: str) -> None:
        """Raises UserError where its packages are not installed."""
        absent = [package for package in self.needs if importlib.util.find_spec(package) is None]
        if absent:
            raise UserError(f"--format {name} needs {', '.join(absent)}: pip install 'kdbench[export]'")


def _write_tensors(module: Deployed) -> bytes:
    from safetensors.torch import save

    state = {name: tensor.detach().cpu().contiguous() for name, tensor in module.net.state_dict().items()}
    return save(state, metadata={"format": "pt", KEY: module.about.model_dump_json()})


def of_file(path: Path) -> Deployed:
    """The network of an exported safetensors file, by that file alone.

    Raises:
        UserError: it cannot be read, kdbench did not export it, or this kdbench cannot build it.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    from kdbench import models
    from kdbench.deploy.module import Deployed

    try:
        with safe_open(path, "pt") as file:
            about = (file.metadata() or {}).get(KEY)
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: cannot be read as safetensors ({str(error).splitlines()[0]})") from error
    if about is None:
        raise UserError(f"{path}: no file of `kdbench export`; it says neither net nor classes")
    try:
        known = About.model_validate_json(about)
    except ValidationError as error:
        raise UserError(f"{path}: of another kdbench ({error.errors()[0]['msg']}); export it again") from error
    with torch.random.fork_rng(devices=()):
        name = known.normalised.name
        net = models.build(known.arch, known.raw.shape, known.answer.outputs, input_name=name)
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(f"{path}: its weights do not fit {known.arch} of this kdbench; export it again") from error
    return Deployed(net, known)


def _graph(module: Deployed) -> Any:
    import torch

    raw = module.about.raw
    example = torch.zeros(2, *raw.shape, dtype=getattr(torch, raw.dtype))
    return torch.export.export(module, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},)), example


def _write_graph(module: Deployed) -> bytes:
    import torch

    buffer = io.BytesIO()
    torch.export.save(_graph(module)[0], buffer, extra_files={KEY: module.about.model_dump_json()})
    return buffer.getvalue()


def _read_graph(path: Path) -> Answers:
    import torch

    return torch.export.load(io.BytesIO(path.read_bytes())).module()  # by its path it is asked to end in .pt2


def _write_onnx(module: Deployed) -> bytes:
    import torch

    graph, example = _graph(module)
    vector = module.kind.vector
    output = vector.word if vector is not None else "scores" if module.about.answer.range is None else "values"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of versions of operators, none of which the user chose
        made = torch.onnx.export(
            graph, (example,), dynamo=True, input_names=["raw"], output_names=[output], verbose=False
        )
    assert made is not None
    made.model.metadata_props[KEY] = module.about.model_dump_json()
    return cast(bytes, made.model_proto.SerializeToString())


def _read_onnx(path: Path) -> Answers:
    import onnxruntime
    import torch

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def answers(raw: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {"raw": raw.numpy()})[0])

    return answers


FORMATS = {
    "safetensors": Format(TENSORS, _write_tensors, of_file, graph=False),
    "onnx": Format(".onnx", _write_onnx, _read_onnx, ("onnx", "onnxscript", "onnxruntime")),
    "torch-export": Format(".pt2", _write_graph, _read_graph),
}
