"""Procedurally ray-cast rooms with NYUv2's three dense tasks (segmentation, depth, normals)."""

from benchmarks.scenes.cache import load
from benchmarks.scenes.codec import decode
from benchmarks.scenes.render import draw
from benchmarks.scenes.spec import CLASSES, PALETTE, VERSION

__all__ = ["CLASSES", "PALETTE", "VERSION", "decode", "draw", "load"]
