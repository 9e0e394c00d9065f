"""Small models and frames for the tests of `models/`: no weights, no network, milliseconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path

import numpy as np

from camlink.models.base import Inference, OutputSpec
from camlink.pipeline.clock import EPOCH
from camlink.pipeline.records import Frame


def picture(index: int = 0, height: int = 48, width: int = 64, camera: str = "a") -> Frame:
    """Return a frame of noise that differs from index to index."""
    pixels = np.random.default_rng(index).integers(0, 256, (height, width, 3), np.uint8)
    pixels.flags.writeable = False
    return Frame(camera, index, EPOCH + timedelta(seconds=index), pixels)


class MeanColour:
    """A runner and model whose value is the mean of the three channels: depends on the frame and on nothing else."""

    def __init__(self, name: str = "colour", memory_gb: float = 1.0, largest_batch: int | None = None) -> None:
        self.spec = OutputSpec(name, "vector", 3, "regression", ("blue", "green", "red"))
        self.time_ms, self.memory_gb = 5.0, memory_gb
        self.largest_batch = largest_batch
        self.is_loaded = False
        self.batches: list[int] = []

    def load(self) -> None:
        self.is_loaded = True

    def unload(self) -> None:
        self.is_loaded = False

    def run(self, frames: Sequence[Frame]) -> list[Inference]:
        assert self.is_loaded
        self.batches.append(len(frames))
        if self.largest_batch is not None and len(frames) > self.largest_batch:
            raise MemoryError("no room for so many frames")
        return [Inference(frame.pixels.mean(axis=(0, 1)).astype(np.float32)) for frame in frames]


def write_yolo_onnx(
    path: Path,
    names: Sequence[str] = ("person", "car"),
    shape: Sequence[int | str] = (1, 3, "height", "width"),
    told: Mapping[str, str] = {},
) -> Path:
    """Write a network of ultralytics' output layout that sees one box, whose class and score follow the picture.

    The box spans the whole input of 32x32; the scores are the mean red and green of the picture. ``told``: of metadata.
    """
    import onnx
    from onnx import TensorProto, helper

    box = helper.make_tensor("box", TensorProto.FLOAT, (1, 4, 1), [16.0, 16.0, 16.0, 8.0])
    nodes = [
        helper.make_node("GlobalAveragePool", ["images"], ["means"]),  # (1, 3, 1, 1)
        helper.make_node("Constant", [], ["starts"], value=helper.make_tensor("s", TensorProto.INT64, (1,), [0])),
        helper.make_node("Constant", [], ["ends"], value=helper.make_tensor("e", TensorProto.INT64, (1,), [2])),
        helper.make_node("Constant", [], ["axes"], value=helper.make_tensor("a", TensorProto.INT64, (1,), [1])),
        helper.make_node("Slice", ["means", "starts", "ends", "axes"], ["two"]),
        helper.make_node("Squeeze", ["two", "last"], ["scores"]),
        helper.make_node("Constant", [], ["last"], value=helper.make_tensor("l", TensorProto.INT64, (1,), [3])),
        helper.make_node("Concat", ["box", "scores"], ["output0"], axis=1),
    ]
    nodes.insert(5, nodes.pop(6))  # "last" must stand before its use
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, (1, 6, 1))],
        [box],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    props = {"names": str(dict(enumerate(names))), "task": "detect", "end2end": "False", **told}
    helper.set_model_props(model, props)
    onnx.save(model, path)
    return path


def write_boxes_onnx(path: Path) -> Path:
    """Write a network as exported with ``nms=True``: float16 pictures in, rows of x1, y1, x2, y2, score, class out.

    Three cars, and places that are empty, whatever the picture.
    """
    import onnx
    from onnx import TensorProto, helper

    rows = np.zeros((1, 5, 6), np.float32)
    rows[0, :3] = [[0, 0, 8, 8, 0.9, 1], [8, 8, 32, 16, 0.8, 1], [0, 8, 8, 32, 0.3, 1]]
    boxes = helper.make_tensor("boxes", TensorProto.FLOAT, rows.shape, rows.reshape(-1))
    graph = helper.make_graph(
        [helper.make_node("Constant", [], ["output0"], value=boxes)],
        "tiny",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT16, (1, 3, 32, 32))],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, (1, 5, 6))],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    told = {"task": "detect", "end2end": "False", "args": "{'batch': 1, 'nms': True}"}
    helper.set_model_props(model, {"names": "{0: 'person', 1: 'car'}", **told})
    onnx.save(model, path)
    return path


def write_classifier_onnx(path: Path, shape: Sequence[int] = (1, 3, 32, 32)) -> Path:
    """Write a network whose three logits are the mean colours of its input."""
    import onnx
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["means"]),
        helper.make_node("Flatten", ["means"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape[:2])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


TRACE_YAML = """\
models:
  people: {kind: vector, size: 1, labels: [person], task: count, time_ms: 20, memory_gb: 1.5}
  light:
    size: 2
    task: single_label
    time_ms: 4.5
    memory_gb: 0.25
"""


def write_trace(folder: Path, frames: int = 4) -> Path:
    """Write a CSV trace of two models and two cameras, ``frames`` each, one minute apart."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "trace.yaml").write_text(TRACE_YAML)
    frame_lines = ["camera_id,frame_index,captured_at,pixel_change,edge_density,mean_luma"]
    output_lines = ["camera_id,frame_index,model,value"]
    for camera in ("a", "b"):
        for index in range(frames):
            at = EPOCH + timedelta(minutes=index)
            frame_lines.append(f"{camera},{index},{at.isoformat()},0.25,0.5,{100 + index}")
            output_lines.append(f"{camera},{index},people,[{index % 3}]")
            output_lines.append(f'{camera},{index},light,"[0.25, 0.75]"')
    (folder / "frames.csv").write_text("\n".join(frame_lines) + "\n")
    (folder / "outputs.csv").write_text("\n".join(output_lines) + "\n")
    return folder
