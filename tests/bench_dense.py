"""The engine's step of a detector beside a bare torchvision loop on the same tensors, and the time of a scoring.

``python tests/bench_dense.py`` prints the median ratio of interleaved blocks, one thread, and seconds of 82 pictures.
"""

from __future__ import annotations

import copy
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS
from torchvision.models.detection.image_list import ImageList

from kdbench import data
from kdbench.base.home import Home
from kdbench.base.progress import Progress
from kdbench.data.decode.place import Place
from kdbench.engine.assemble import prepare
from kdbench.engine.place import RunPlace
from kdbench.engine.scoring import Scorer
from kdbench.engine.stage import StageRun
from kdbench.specs.config import run_config

BLOCKS, STEPS, PICTURES = 15, 8, 82


class Levels(nn.Module):
    """What torchvision calls a backbone."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.body, self.neck, self.reads, self.out_channels = net.body, net.neck, net._reads, 16

    def forward(self, x: Tensor) -> dict[Any, Tensor]:
        stages = self.body(x)
        return dict(enumerate(self.neck([stages.maps[stage] for stage in self.reads])))


def bare(net: Any) -> Any:
    """torchvision's FCOS of a detector's parts; its picture transform is passed by."""
    own = copy.deepcopy(net)
    made: Any = FCOS(Levels(own), 3, head=own.head, anchor_generator=own._anchors)
    return made


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        config = run_config("plain", "shapes", [f"data.options.test={PICTURES}"])
        rows = data.load(config.task.data, Place(None, Path(folder), Progress.silent()))
        place = RunPlace(torch.device("cpu"), Home(Path(folder)), None, Path(folder) / "run")
        made = prepare(config, 0, place, rows)
        made.method.train()
        stage = next(iter(made.method.stages()))
        loader = StageRun(made.method, stage, made.task).loader
        ring = [loader.draw(number) for number in range(8)]
        run = StageRun(made.method, stage, made.task, draw=lambda number: ring[number % 8])
        theirs = bare(made.method.student).train()
        optimizer = torch.optim.AdamW(theirs.parameters(), lr=4e-3, weight_decay=1e-4)
        count = 0

        def plain_loop() -> None:
            nonlocal count
            batch = ring[count % 8]
            count += 1
            features = list(theirs.backbone(batch.x["image"]).values())
            targets = batch.y.listed()
            images = ImageList(batch.x["image"], [(64, 64)] * len(targets))
            outputs = theirs.head(features)
            cells = [f.shape[-1] * f.shape[-2] for f in features]
            terms = theirs.compute_loss(targets, outputs, theirs.anchor_generator(images, features), cells)
            optimizer.zero_grad(set_to_none=True)
            torch.stack(list(terms.values())).sum().backward()
            nn.utils.clip_grad_norm_(theirs.parameters(), 10.0)
            optimizer.step()

        def engine() -> None:
            if run.step_number >= run.total:
                run.step_number = 0
            run.step()

        def block(step: Any) -> float:
            begin = time.process_time()
            for _ in range(STEPS):
                step()
            return time.process_time() - begin

        block(engine), block(plain_loop)
        ratios = [block(engine) / block(plain_loop) for _ in range(BLOCKS)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(f"engine / bare torchvision loop, CPU time: {middle:.3f} (quartiles {low:.3f} {high:.3f})")
        begin = time.process_time()
        Scorer(made.task).all(made.method.student)
        print(f"scoring {PICTURES} pictures: {time.process_time() - begin:.2f} CPU s")


if __name__ == "__main__":
    main()
