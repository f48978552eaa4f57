"""A device class is read, written and compared as a value."""

from __future__ import annotations

import pytest

from kdbench.devices.deviceclass import DeviceClass
from kdbench.specs.options import EAGER, EngineOptions


@pytest.mark.parametrize("text", ["cpu/fp32/x1", "cuda:NVIDIA-H100-80GB-HBM3/bf16/x16/compile/teacher-fp32"])
def test_it_is_written_as_it_was_read(text):
    assert str(DeviceClass.parse(text)) == text


def test_its_parts():
    found = DeviceClass.parse("cuda:NVIDIA-H100-80GB-HBM3/bf16/x16/compile")
    assert (found.kind, found.model, found.processes) == ("cuda", "NVIDIA-H100-80GB-HBM3", 16)
    assert (found.dtype, found.options) == ("bf16", ("compile",))
    assert found.runs_like(EngineOptions(precision="bf16", compile=True), 16)
    assert not found.runs_like(EAGER)
    assert DeviceClass.parse("cpu/fp32/x1").model == ""


@pytest.mark.parametrize("text", ["", "cpu", "cpu/fp32", "cpu/fp32/compile", "cpu/fp32/xy"])
def test_other_text_is_none(text):
    with pytest.raises(ValueError, match="is no device class"):
        DeviceClass.parse(text)
