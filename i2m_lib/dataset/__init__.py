"""From a ShapeNet folder to meshes, surface samples and views; only `build` and `render` need VTK at import."""
