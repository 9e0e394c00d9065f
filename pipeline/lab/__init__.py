"""The lab: policies compared on the same recorded outputs, without pixels, weights or a GPU (docs/compare.md)."""
