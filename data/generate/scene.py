"""Blender on one side, arrays on the other: read a scene, its colours, decimate a mesh."""

import bpy  # bmesh exists only once bpy is imported

# isort: split
import bmesh
import numpy as np

GLASS = (0.70, 0.82, 0.86)  # the shader's own colour is white: all its look is refraction
DARKEST, BRIGHTEST = 0.06, 0.96  # pure black or white leave nothing for shading to show


def read(root: bpy.types.Object) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[tuple]]:
    """Return V (n,3), F (m,3), paint (m,) and the palette [(name, (r, g, b))] it indexes.

    Takes root and all below it, modifiers applied, in world coordinates; colours are sRGB.
    """
    bpy.context.view_layer.update()
    graph = bpy.context.evaluated_depsgraph_get()
    vertices, faces, paints, palette, n = [], [], [], [], 0
    for obj in [root, *root.children_recursive]:
        if obj.type != "MESH":
            continue
        mesh = obj.evaluated_get(graph).to_mesh()
        V, F, slot = arrays(mesh)
        pose = np.array(obj.matrix_world)
        swatches = [swatch(m) for m in mesh.materials] or [swatch(None)]
        palette += [s for s in dict.fromkeys(swatches) if s not in palette]
        lookup = np.array([palette.index(s) for s in swatches])
        vertices.append(V @ pose[:3, :3].T + pose[:3, 3])
        faces.append(F + n)
        paints.append(lookup[np.minimum(slot, len(lookup) - 1)])
        n += len(V)
    return np.concatenate(vertices), np.concatenate(faces), np.concatenate(paints), palette


def arrays(mesh: bpy.types.Mesh) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return V (n,3), F (m,3) and the material slot (m,) of each triangle of a mesh."""
    mesh.calc_loop_triangles()
    triangles = mesh.loop_triangles
    V = np.empty(3 * len(mesh.vertices), np.float32)
    F, slot = np.empty(3 * len(triangles), np.int32), np.empty(len(triangles), np.int32)
    mesh.vertices.foreach_get("co", V)
    triangles.foreach_get("vertices", F)
    triangles.foreach_get("material_index", slot)
    return V.reshape(-1, 3).astype(float), F.reshape(-1, 3), slot


class Decimator:
    """Blender's quadric collapse of one mesh to as many faces as are asked for."""

    def __init__(self, V: np.ndarray, F: np.ndarray, paint: np.ndarray):
        """Put the mesh V (n,3), F (m,3) with colours paint (m,) into the scene."""
        self.n = len(F)
        self.obj = bpy.data.objects.new("part", new_mesh(V, F, paint))
        bpy.context.scene.collection.objects.link(self.obj)
        dissolve = self.obj.modifiers.new("dissolve", "DECIMATE")
        dissolve.decimate_type, dissolve.use_dissolve_boundaries = "DISSOLVE", True
        dissolve.angle_limit, dissolve.delimit = np.radians(2), {"MATERIAL"}
        self.flatten = [dissolve, self.obj.modifiers.new("cut", "TRIANGULATE")]
        self.collapse = self.obj.modifiers.new("collapse", "DECIMATE")

    def __call__(self, n_faces: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return V, F and paint with about n_faces faces.

        The collapse gets stuck on some non-manifold parts; these have their flat regions dissolved
        before it.
        """
        result = self._apply(n_faces / self.n, flat=False)
        if len(result[1]) > 1.2 * n_faces:
            n_flat = len(self._apply(1.0, flat=True)[1])
            result = self._apply(n_faces / n_flat, flat=True)
        return result

    def _apply(self, ratio: float, flat: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        self.collapse.ratio = min(1.0, ratio)
        for modifier in self.flatten:
            modifier.show_viewport = flat
        graph = bpy.context.evaluated_depsgraph_get()
        return arrays(self.obj.evaluated_get(graph).to_mesh())

    def close(self) -> None:
        """Remove the mesh from the scene."""
        bpy.data.meshes.remove(self.obj.data)


def new_mesh(V: np.ndarray, F: np.ndarray, paint: np.ndarray) -> bpy.types.Mesh:
    """Return a Blender mesh whose faces are turned the same way round, outwards."""
    mesh = bpy.data.meshes.new("part")
    mesh.vertices.add(len(V))
    mesh.vertices.foreach_set("co", V.astype(np.float32).ravel())
    mesh.loops.add(F.size)
    mesh.loops.foreach_set("vertex_index", F.astype(np.int32).ravel())
    mesh.polygons.add(len(F))
    mesh.polygons.foreach_set("loop_start", np.arange(0, F.size, 3, dtype=np.int32))
    mesh.polygons.foreach_set("material_index", paint.astype(np.int32))
    mesh.update(calc_edges=True)
    work = bmesh.new()
    work.from_mesh(mesh)
    bmesh.ops.recalc_face_normals(work, faces=work.faces)
    work.to_mesh(mesh)
    work.free()
    return mesh


def swatch(material: bpy.types.Material | None) -> tuple[str, tuple[float, float, float]]:
    """Return a material's short name and its diffuse colour, sRGB rounded to 3 places."""
    if material is None:
        return "plain", (0.6, 0.6, 0.6)
    name = material.name.split(".")[0].removeprefix("shader_").removesuffix("_z")
    if "glass" in name:
        return name, GLASS
    output = next(n for n in material.node_tree.nodes if n.type == "OUTPUT_MATERIAL")
    linear = np.clip(mean_colour(output.inputs["Surface"], ()), 0, 1)
    srgb = np.where(linear < 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return name, tuple(np.clip(srgb, DARKEST, BRIGHTEST).round(3).tolist())


def mean_colour(socket: bpy.types.NodeSocket, groups: tuple) -> np.ndarray:
    """Return the linear colour (3,) that arrives at a shader or colour socket.

    Mixtures are averaged and textures skipped, so that a procedural material yields its mean tone.
    `groups` are the group nodes entered on the way, outermost first.
    """
    if not socket.is_linked:
        return np.array(socket.default_value[:3]) if socket.type == "RGBA" else np.full(3, 0.5)
    source = socket.links[0].from_socket
    node = source.node
    if node.type == "RGB":
        return np.array(source.default_value[:3])
    if node.type == "VALTORGB":
        return np.mean([e.color[:3] for e in node.color_ramp.elements], axis=0)
    if node.type == "COMBINE_COLOR":
        channels = [i.links[0].from_socket if i.is_linked else i for i in node.inputs]
        return np.array([c.default_value for c in channels])
    if node.type == "GROUP":
        inner = next(n for n in node.node_tree.nodes if n.type == "GROUP_OUTPUT")
        return mean_colour(inner.inputs[source.name], (*groups, node))
    if node.type == "GROUP_INPUT":
        return mean_colour(groups[-1].inputs[source.name], groups[:-1])
    wanted = [i for i in node.inputs if i.enabled and i.type in ("RGBA", "SHADER")]
    if node.type.startswith("BSDF") or node.type == "EMISSION":
        wanted = wanted[:1]
    elif node.type == "MIX" and node.blend_type != "MIX":
        wanted = wanted[:1]  # B only modulates A
    elif node.type == "MIX_SHADER":
        wanted = [i for i in wanted if i.is_linked]
    return np.mean([mean_colour(i, groups) for i in wanted] or [np.full(3, 0.5)], axis=0)
