"""From a ShapeNet folder to meshes, surface samples and views; only `build`, `render` and `cleaning.simplify` need VTK."""
