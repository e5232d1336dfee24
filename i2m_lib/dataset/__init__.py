"""From a ShapeNet-layout corpus to clean meshes, surface samples and rendered views.

Import the modules by name: `views` needs only numpy, pandas and torch, so that a training node
has no use for VTK or trimesh; `build` and `render` need them.
"""
