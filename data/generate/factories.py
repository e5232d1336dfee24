"""Build one Infinigen asset in an emptied Blender scene. Two factories are our own variations.

Infinigen draws from NumPy's global state and seeds it around each asset; so do the variations.
"""

import bpy
import gin
import numpy as np
from infinigen.core.util import blender as butil
from infinigen.core.util.math import FixedSeed

with gin.unlock_config():  # importing a factory registers its settings
    from infinigen.assets.objects import lamp, seating, shelves, tables


class ArcLampFactory(lamp.FloorLampFactory):
    """A floor lamp whose stand bends over to the front and carries a hanging shade."""

    def sample_parameters(self, dimensions, use_default=False):
        params = super().sample_parameters(dimensions, use_default)
        top, reach = params["CurvePoint3"][2], np.random.uniform(0.2, 0.45)
        params["CurvePoint1"] = (0.0, 0.0, top * np.random.uniform(0.5, 0.9))
        params["CurvePoint2"] = (reach * np.random.uniform(0.1, 0.9), 0.0, 1.25 * top)
        params["CurvePoint3"] = (reach, 0.0, top * np.random.uniform(0.7, 1.0))
        params["ReverseLamp"] = False
        return params


class MadeBedFactory(seating.BedFactory):
    """A bed with mattress and pillows, but no sheets: draping one takes minutes of simulation."""

    def create_asset(self, i, **params) -> bpy.types.Object:
        frame = seating.BedFrameFactory.create_asset(self, i=i, **params)
        mattress = self.make_mattress(i)
        pillow = self.pillow_factory(i)
        pillows = [pillow] + [butil.deep_clone_obj(pillow) for _ in range(np.random.randint(1, 3))]
        self.pillow_factory.finalize_assets(pillows)
        columns = np.linspace(-0.5, 0.5, len(pillows) + 2)[1:-1] * self.width
        points = np.array([(0.17 * self.size, y, 1.0) for y in columns])
        self.scatter(pillows, points, [mattress])
        for part in [mattress, *pillows]:
            part.parent = frame
        return frame


def build(name: str, seed: int) -> bpy.types.Object:
    """Return the asset of factory `name` and `seed`, alone in the scene."""
    butil.clear_scene()
    rooms = (seating, tables, lamp, shelves)
    made = globals().get(name) or next(getattr(r, name) for r in rooms if hasattr(r, name))
    with FixedSeed(seed):
        return made(seed).spawn_asset(seed)
