"""From one image of an object to a mesh: Reconstructor.load().reconstruct("chair.png").save("chair.glb")"""

from .reconstructor import Reconstruction, Reconstructor

__all__ = ["Reconstruction", "Reconstructor"]
