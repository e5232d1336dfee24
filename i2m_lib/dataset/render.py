"""An off-screen renderer of views with true masks."""

import os
from contextlib import suppress
from functools import cache

import numpy as np

# Must precede the first import of VTK, which otherwise looks for an X server and warns.
os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")

# Mesa, which VTK draws with, and triton, which torchvision imports, each bring an LLVM. The process crashes if triton's
# is loaded after Mesa's, so it is loaded here.
with suppress(ImportError):
    import triton  # noqa: F401

import pyvista as pv
from vtkmodules.util.numpy_support import vtk_to_numpy
from vtkmodules.vtkCommonCore import vtkUnsignedCharArray

from i2m_lib.geometry.cameras import OVERSAMPLING, Camera

from .textures import Skin


class Renderer:
    """Draws meshes at `size` x `size` pixels in one off-screen window: use it in a `with` block, one at a time."""

    def __init__(self, size: int):
        self.size = size
        pixels = size * OVERSAMPLING
        self._plotter = pv.Plotter(off_screen=True, window_size=(pixels, pixels), lighting="none")
        self._plotter.set_background("black")
        self._window = self._plotter.render_window
        # Blended edges would put half-covered pixels into the mask.
        self._window.SetMultiSamples(0)
        self._window.SetAlphaBitPlanes(1)
        self._key, self._fill = (pv.Light(light_type="camera light") for _ in range(2))
        for light in (self._key, self._fill):
            self._plotter.add_light(light)
        self._pixels = vtkUnsignedCharArray()
        self._actors: list[pv.Actor] = []
        self._parts: list[tuple[pv.PolyData, np.ndarray]] = []  # and which vertices of the loaded mesh their points are

    def __enter__(self) -> "Renderer":
        return self

    def __exit__(self, *exception: object) -> None:
        self._plotter.close()

    def load(self, V: np.ndarray, F: np.ndarray, C: np.ndarray, skin: Skin | None = None) -> None:
        """Makes `shoot` show vertices V (n,3), faces F (m,3), face colours C (m,3) uint8 and the textures of `skin`."""
        for actor in self._actors:
            self._plotter.remove_actor(actor, render=False)
        self._actors, self._parts = [], []
        V, F, C = np.asarray(V, np.float32), np.asarray(F), np.asarray(C, np.uint8)
        bare = np.arange(len(F)) if skin is None else np.flatnonzero(skin.texture < 0)
        if len(bare):
            mesh = pv.PolyData.from_regular_faces(V, F[bare])
            mesh.cell_data["C"] = C[bare]
            self._add(mesh, np.arange(len(V)), scalars="C", rgb=True)
        for i, image in enumerate(skin.images if skin else ()):
            faces = np.flatnonzero(skin.texture == i)
            if len(faces):
                corners = F[faces].ravel()
                mesh = pv.PolyData.from_regular_faces(V[corners], np.arange(len(corners)).reshape(-1, 3))
                mesh.active_texture_coordinates = skin.uv[faces].reshape(-1, 2)
                texture = pv.Texture(image)
                texture.repeat, texture.mipmap, texture.interpolate = True, True, True
                # By more, Mesa visits each texel of a pixel: minutes where a texture repeats a thousand times.
                texture.SetMaximumAnisotropicFiltering(1)
                self._add(mesh, corners, texture=texture, color="white")

    def move(self, V: np.ndarray) -> None:
        """Puts the vertices of the loaded mesh elsewhere. Another `load` would read its textures again."""
        for mesh, vertices in self._parts:
            mesh.points = np.asarray(V, np.float32)[vertices]

    def _add(self, mesh: pv.PolyData, vertices: np.ndarray, **look: object) -> None:
        self._parts.append((mesh, vertices))
        self._actors.append(self._plotter.add_mesh(mesh, reset_camera=False, render=False, **look))

    def shoot(self, camera: Camera, light_rng: np.random.Generator) -> np.ndarray:
        """The loaded mesh as RGBA uint8 (size,size,4) in a random soft light, both sides of its faces lit. Alpha is 255
        where at least half of the pixel is covered and 0 elsewhere."""
        self._set_light(light_rng)
        view = self._plotter.camera
        view.SetPosition(*camera.eye)
        view.SetFocalPoint(*camera.target)
        view.SetViewUp(*-camera.rotation[1])
        view.SetViewAngle(float(2 * np.degrees(np.arctan(0.5 / camera.focal))))
        self._plotter.renderer.ResetCameraClippingRange()
        self._window.Render()
        last = self.size * OVERSAMPLING - 1
        self._window.GetRGBACharPixelData(0, 0, last, last, 0, self._pixels)
        rows = vtk_to_numpy(self._pixels).reshape(last + 1, last + 1, 4)
        return _reduce(rows[::-1], OVERSAMPLING)  # VTK counts rows from the bottom

    def render(
        self, V: np.ndarray, F: np.ndarray, C: np.ndarray, camera: Camera, light_rng: np.random.Generator
    ) -> np.ndarray:
        """`load` and `shoot` in one call."""
        self.load(V, F, C)
        return self.shoot(camera, light_rng)

    def _set_light(self, rng: np.random.Generator) -> None:
        """A key light from above on either side of the camera, a weak one opposite, ambient."""
        side, height = np.radians(rng.uniform([-70, 15], [70, 75]))
        key, fill, ambient = rng.uniform([0.45, 0.1, 0.25], [0.7, 0.25, 0.45])
        direction = np.array([np.cos(height) * np.sin(side), np.sin(height), np.cos(height) * np.cos(side)])
        for light, towards, intensity in ((self._key, direction, key), (self._fill, direction * [-1, 0.2, 1], fill)):
            light.SetPosition(*towards)
            light.SetIntensity(intensity)
        for actor in self._actors:
            actor.prop.ambient = ambient


def _reduce(rgba: np.ndarray, k: int) -> np.ndarray:
    """(k*s,k*s,4) on black with alpha 0 or 255 -> (s,s,4): the mean colour of the covered pixels of each k x k block,
    and alpha 255 where they are at least half of it."""
    rows = rgba[::k].astype(np.uint16)
    for i in range(1, k):
        rows += rgba[i::k]
    pixels = rows.view(np.uint64)[..., 0]  # four sums of 16 bits, none of which overflows, added at once
    total = sum(pixels[:, j::k] for j in range(k)).view(np.uint16).reshape(len(rows), -1, 4)
    return _means(k)[total[..., 3:] // 255, total]


@cache
def _means(k: int) -> np.ndarray:
    """(k*k+1,255*k*k+1) uint8: the rounded mean of n values by their sum; 0 for less than half of k x k."""
    n, total = np.ogrid[: k * k + 1, : 255 * k * k + 1]
    return np.where(2 * n >= k * k, (total + n // 2) // np.maximum(n, 1), 0).astype(np.uint8)
