"""YOLO weights exported once to ONNX, because onnxruntime runs them faster on CPU than torch does."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from pathlib import Path

from camlink.models.ultralytics import open_yolo, version
from camlink.models.weights import cache_folder, sha256_of
from camlink.pipeline.errors import ModelError

log = logging.getLogger(__name__)


def exported(weights: Path, image_size: int, cache_dir: Path | None = None) -> Path:
    """Return the ONNX file for ``weights``, exporting it with ultralytics if this cache has none yet (seconds).

    The file accepts any height and width that are multiples of the stride, so that frames need no square padding. It is
    keyed by the weights' bytes, ``image_size`` and ultralytics' version. Raises `ModelError`.
    """
    folder = cache_folder(cache_dir) / "exports"
    target = folder / f"{weights.stem}-{sha256_of(weights)[:16]}-{image_size}-ultralytics-{version()}.onnx"
    if target.is_file():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    log.info("exporting %s to ONNX, once", weights.name)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=folder) as scratch:
        # The exporter writes beside its input, which may lie in a folder of the user's.
        copy = Path(scratch) / weights.name
        shutil.copyfile(weights, copy)
        try:
            made = open_yolo(copy, cache_dir).export(format="onnx", imgsz=image_size, dynamic=True, simplify=False)
        except ModelError as error:
            raise ModelError(str(error).replace(str(copy), str(weights))) from error
        except Exception as error:  # the exporter's errors have no common root
            raise ModelError(f"cannot export {weights} to ONNX: {error}; is the package onnx installed?") from error
        os.replace(made, target)
    return target
