from pathlib import Path

import numpy as np
import point_cloud_utils as pcu
import pytest
import trimesh
from PIL import Image
from scipy.spatial import cKDTree

from i2m_lib.dataset.cleaning import MeshError, RawMesh, clean, load_mesh, simplify
from i2m_lib.dataset.shapenet import Corpus
from i2m_lib.dataset.source import ModelSource
from i2m_lib.dataset.textures import DEFAULT_COLOUR
from i2m_lib.geometry.surfaces import cross_products, double_areas, is_watertight, normalise, sample_surface

SAMPLES = Path(__file__).parents[3] / "shared" / "raw_samples"
CORPUS = SAMPLES.parent / "corpus" / "ShapeNetCore.v2"
needs_samples = pytest.mark.skipif(not SAMPLES.is_dir(), reason="the shared samples are not here")
TETRAHEDRON = "v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\n"
FACES = ["f 1 3 2", "f 1 2 4", "f 1 4 3", "f 2 3 4"]


def source_of(tmp_path: Path, obj: str, layout: str = "v2", **files: str) -> ModelSource:
    entry = "a/models/model_normalized.obj" if layout == "v2" else "a/model.obj"
    (tmp_path / entry).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / entry).write_text(obj)
    for name, text in files.items():
        (tmp_path / entry).with_name(name.replace("_", ".")).write_text(text)
    return ModelSource("03001627", "a", layout, tmp_path, entry)


def box() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A box of 1 x 2 x 3 with a colour for each face that tells its place."""
    solid = trimesh.creation.box(extents=(1, 2, 3))
    V, F = np.array(solid.vertices), np.array(solid.faces)
    return V, F, colour_of(V, F)


def cleaned(V: np.ndarray, F: np.ndarray, C: np.ndarray) -> tuple[RawMesh, dict[str, int]]:
    mesh = clean(RawMesh(V, F, C))
    return mesh, mesh.facts


def colour_of(V: np.ndarray, F: np.ndarray) -> np.ndarray:
    return np.uint8(128 + 40 * V[F].mean(1))


# Loading


def test_a_v2_file_keeps_its_frame_and_v1_turns_its_front_from_x_to_minus_z(tmp_path):
    obj = TETRAHEDRON.replace("v 1 0 0", "v 5 0 0") + "\n".join(FACES)
    V2 = load_mesh(source_of(tmp_path, obj)).V
    V1 = load_mesh(source_of(tmp_path, obj, layout="v1")).V
    assert {tuple(v) for v in V2} == {(0, 0, 0), (5, 0, 0), (0, 1, 0), (0, 0, 1)}
    assert {tuple(v) for v in V1} == {(0, 0, 0), (0, 0, -5), (0, 1, 0), (1, 0, 0)}


def test_material_colours_survive_loading_and_cleaning(tmp_path):
    materials = ["red", "blue", "none", "red"]
    obj = "mtllib a.mtl\n" + TETRAHEDRON
    obj += "\n".join(f"usemtl {m}\n{f}" for m, f in zip(materials, FACES, strict=True))
    mtl = "newmtl red\nKd 1 0 0\nnewmtl blue\nKd 0 0 1\n"
    raw = load_mesh(source_of(tmp_path, obj, a_mtl=mtl))
    mesh = clean(raw)
    colour = {"red": (255, 0, 0), "blue": (0, 0, 255), "none": DEFAULT_COLOUR}
    for material, face in zip(materials, FACES, strict=True):
        corners = {tuple(np.eye(4, 3, -1)[int(i) - 1]) for i in face.split()[1:]}
        (i,) = (i for i, f in enumerate(mesh.F) if {tuple(v) for v in mesh.V[f]} == corners)
        assert tuple(mesh.C[i]) == colour[material]


def test_vertex_colours_are_averaged(tmp_path):
    obj = "v 0 0 0 1 0 0\nv 1 0 0 1 0 0\nv 0 1 0 1 0 0\nf 1 2 3"
    assert load_mesh(source_of(tmp_path, obj)).C.tolist() == [[255, 0, 0]]


@pytest.mark.parametrize("options", ["", "-s 1 1 1 ", "-clamp on -bm -0.5 ", "-s\t1\t1\t1\t"])
def test_the_name_of_a_texture_follows_its_options(tmp_path, options):
    obj = "mtllib a.mtl\n" + TETRAHEDRON + "usemtl t\nf 1 2 3\n"
    source = source_of(tmp_path, obj, a_mtl=f"newmtl t\nmap_Kd {options}my 1 wood.png\n")
    Image.new("RGB", (2, 2), (9, 8, 7)).save(tmp_path / "a" / "models" / "my 1 wood.png")
    assert load_mesh(source).C.tolist() == [[9, 8, 7]]


def test_textures_are_read_where_the_face_lies(tmp_path):
    obj = "mtllib a.mtl\n" + TETRAHEDRON + "vt 0.1 0.9\nvt 0.3 0.9\nvt 0.1 0.7\n"
    obj += "vt 0.1 -0.7\nvt 2.3 -0.7\nvt 0.1 -0.9\nusemtl t\nf 1/1 2/2 3/3\nf 1/4 2/5 4/6\n"
    source = source_of(tmp_path, obj, a_mtl="newmtl t\nKd 0 1 0\nmap_Kd ../images/t.png")
    without = load_mesh(source)
    assert without.C.tolist() == [[0, 255, 0]] * 2

    image = np.zeros((8, 8, 3), np.uint8)
    image[:4, :, 0], image[4:, :, 2] = 255, 255  # red above blue
    (tmp_path / "a" / "images").mkdir()
    Image.fromarray(image).save(tmp_path / "a" / "images" / "t.png")
    assert sorted(load_mesh(source).C.tolist()) == [[0, 0, 255], [255, 0, 0]]

    whole = (tmp_path / "a" / "images" / "t.png").read_bytes()
    (tmp_path / "a" / "images" / "t.png").write_bytes(whole[: len(whole) // 2])
    assert load_mesh(source).C.tolist() == without.C.tolist()


@pytest.mark.parametrize(
    ("obj", "reason"),
    [
        ("", "empty|unreadable"),
        ("v 0 0 0\nv 1 0 0\nv 0 1 0\n", "empty"),
        ("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 9\n", "unreadable"),
        ("v a b c\nf 1 1 1\n", "unreadable|empty"),
    ],
)
def test_bad_files_are_refused_with_a_reason(tmp_path, obj, reason):
    with pytest.raises(MeshError, match=reason):
        load_mesh(source_of(tmp_path, obj))


@needs_samples
@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("fbx_ascii/chair.fbx", "unreadable: the file is ASCII FBX"),
        ("gltf1/ask21.glb", "unreadable: the file is binary glTF"),
        ("gltf_draco/apple.gltf", "unreadable: the file is JSON, perhaps glTF"),
    ],
)
def test_files_in_other_formats(entry, reason):
    with pytest.raises(MeshError, match=reason):
        load_mesh(ModelSource("0", "x", "v2", SAMPLES, entry))


@needs_samples
def test_double_sided_parts_lose_half_of_their_faces():
    for path in sorted((SAMPLES / "ikea_parts_double_sided" / "Bench_applaro").glob("*.obj")):
        entry = path.relative_to(SAMPLES).as_posix()
        raw = load_mesh(ModelSource("0", "x", "v2", SAMPLES, entry))
        assert (raw.C == DEFAULT_COLOUR).all()
        mesh = clean(raw)
        assert mesh.facts["n_duplicate_faces"] == len(mesh.F) == len(raw.F) / 2


# Cleaning


def test_cleaning_a_clean_mesh_changes_nothing_but_the_order():
    V, F, C = box()
    mesh, counts = cleaned(V, F, C)
    assert not any(counts.values())
    assert sorted(map(tuple, mesh.V)) == sorted(map(tuple, V))
    assert np.array_equal(mesh.V[mesh.F], V[F])
    assert np.array_equal(mesh.C, C)


def test_cleaning_counts_what_it_removes():
    V, F, C = box()
    F = np.vstack([F, [[8, 9, 10], [0, 0, 1], [0, 11, 1]], F[:3, ::-1], F[4:5, [1, 2, 0]]])
    V = np.vstack([V, [[np.nan, 0, 0], [0, 0, 0], [0, 0, 1]], V[1] + 1e-7, [[9, 9, 9]]])
    V[8:11, 1:] = 0.3
    mesh, counts = cleaned(V, F, np.vstack([C, np.zeros((7, 3), np.uint8)]))
    assert counts == {
        "n_nan_vertices": 1,
        "n_nan_faces": 1,
        "n_merged_vertices": 1,
        "n_unreferenced_vertices": 3,
        "n_degenerate_faces": 2,
        "n_duplicate_faces": 4,
        "n_flat_axes": 0,
    }
    assert is_watertight(mesh.F)
    assert np.allclose(mesh.V[mesh.F], V[F[:12]], atol=2e-7)
    assert np.array_equal(mesh.C, C)


def test_separate_triangles_become_a_closed_box():
    V, F, C = box()
    soup = V[F].reshape(-1, 3) + np.random.default_rng(0).uniform(-1e-9, 1e-9, (36, 3))
    soup[0, :] = V[F[0, 0]]
    mesh, counts = cleaned(soup, np.arange(36).reshape(-1, 3), C)
    assert counts["n_merged_vertices"] == 28
    assert is_watertight(mesh.F)
    assert np.array_equal(mesh.C, C)


def test_cleaning_is_idempotent_and_scales_with_the_mesh():
    rng = np.random.default_rng(1)
    V, F = rng.random((300, 3)), rng.integers(0, 300, (2000, 3))
    V[250:] = V[:50] + 1e-8
    C = rng.integers(0, 255, (2000, 3)).astype(np.uint8)
    once, counts = cleaned(V, F, C)
    assert counts["n_merged_vertices"] >= 45
    again, none = cleaned(once.V, once.F, once.C)
    assert not any(none.values())
    assert np.array_equal(again.F, once.F)
    large, same = cleaned(V * 1e6 - 1e5, F, C)
    assert same == counts
    assert np.allclose(large.V, once.V * 1e6 - 1e5)


def test_fillers_of_t_junctions_stay():
    # A quad whose lower edge has a vertex in its middle: without the filler 0-1-4 it would crack.
    V = np.array([[0, 0, 0], [2, 0, 0], [2, 1, 0], [0, 1, 0], [1, 0, 0]], float)
    F = np.array([[0, 1, 2], [0, 2, 3], [0, 4, 1]])
    mesh, counts = cleaned(V, F, np.zeros((3, 3), np.uint8))
    assert len(mesh.F) == 3
    assert counts["n_degenerate_faces"] == 0


@pytest.mark.parametrize(
    ("V", "reason"),
    [
        (np.full((3, 3), np.nan), "NaN"),
        (np.ones((3, 3)), "all vertices are equal"),
        (np.eye(3) * [1, 0, 0], "flat"),
        (np.eye(3) * [1, 1e-9, 0], "flat"),
    ],
)
def test_shapes_that_are_none(V, reason):
    with pytest.raises(MeshError, match=reason):
        cleaned(V, np.array([[0, 1, 2]]), np.zeros((1, 3), np.uint8))
    with pytest.raises(MeshError, match="degenerate"):
        cleaned(np.eye(3), np.array([[0, 1, 1], [2, 2, 0]]), np.zeros((2, 3), np.uint8))


# The canonical frame, samples and closedness


def test_normalise_and_back():
    V, _, _ = box()
    V = V @ np.diag([3.0, 1, 2]) + [5, -7, 1]
    out, centre, scale = normalise(V)
    assert np.allclose(out.min(0), -out.max(0))
    assert np.linalg.norm(np.ptp(out, axis=0)) == pytest.approx(1)
    assert np.allclose(out * scale + centre, V)
    assert np.allclose(normalise(out)[0], out)
    with pytest.raises(ValueError, match="equal"):
        normalise(np.ones((4, 3)))


def test_areas_of_a_box():
    V, F, _ = box()
    assert double_areas(V, F).sum() / 2 == pytest.approx(22)  # 2 (1*2 + 2*3 + 3*1)
    normals = cross_products(V, F)
    assert ((normals * V[F].mean(1)).sum(1) > 0).all()


def test_samples_lie_on_their_faces_in_proportion_to_area():
    V, F, _ = box()
    n = 60_000
    points, face = sample_surface(V, F, n, np.random.default_rng(0))
    on_side = np.isclose(np.abs(points), [0.5, 1, 1.5])
    assert on_side.any(1).all()
    assert (np.abs(points) <= np.array([0.5, 1, 1.5]) + 1e-12).all()
    normals = cross_products(V, F)
    assert np.allclose(((points - V[F[face, 0]]) * normals[face]).sum(1), 0)
    expected = double_areas(V, F) / 44
    assert np.allclose(np.bincount(face, minlength=12) / n, expected, atol=0.006)
    # Uniform on a triangle: the mean is the centroid, and |x - centroid|^2 is (a2 + b2 + c2) / 36.
    at = points[face == 0]
    corners = V[F[0]]
    assert np.allclose(at.mean(0), corners.mean(0), atol=0.05)
    edges = ((corners - np.roll(corners, 1, 0)) ** 2).sum()
    assert ((at - corners.mean(0)) ** 2).sum(1).mean() == pytest.approx(edges / 36, rel=0.05)


def test_samples_match_a_plain_twin_and_skip_faces_without_area():
    V, F, _ = box()
    F = np.vstack([[[0, 0, 1]], F, [[2, 2, 2]]])
    points, face = sample_surface(V, F, 50, np.random.default_rng(3))
    rng = np.random.default_rng(3)
    share, r, t = rng.random(50), rng.random(50), rng.random(50)
    areas = [np.linalg.norm(np.cross(V[b] - V[a], V[c] - V[a])) / 2 for a, b, c in F]
    for i in range(50):
        j, rest = 0, share[i] * sum(areas)
        while rest >= areas[j]:
            rest -= areas[j]
            j += 1
        a, b, c = V[F[j]]
        s = np.sqrt(r[i])
        assert face[i] == j
        assert np.allclose(points[i], (1 - s) * a + s * (1 - t[i]) * b + s * t[i] * c)


@pytest.mark.parametrize("F", [[[0, 1, 1]], np.zeros((0, 3), int)])
def test_no_area_no_samples(F):
    with pytest.raises(ValueError, match="without area"):
        sample_surface(np.eye(3), np.asarray(F), 5, np.random.default_rng(0))


@pytest.mark.parametrize("solid", [trimesh.creation.icosphere(), trimesh.creation.annulus(1, 2, 1)])
def test_watertight_as_trimesh_says(solid):
    F = np.asarray(solid.faces)
    assert is_watertight(F)
    assert solid.is_watertight
    assert not is_watertight(F[1:])
    assert not is_watertight(np.vstack([F, F[:1]]))


# Cleaning keeps the surface


def nasty(name: str) -> tuple[np.ndarray, np.ndarray]:
    solid = trimesh.creation.annulus(0.3, 1, 0.5, sections=24)
    V, F = np.array(solid.vertices), np.array(solid.faces)
    rng = np.random.default_rng(5)
    match name:
        case "doubled":
            F = np.vstack([F, F[:, ::-1], F[::2, [1, 2, 0]]])
        case "soup":
            V, F = V[F].reshape(-1, 3) + rng.normal(size=(3 * len(F), 3)) * 1e-9, np.arange(3 * len(F)).reshape(-1, 3)
        case "T-junctions":  # every face is split on one side only, the gap closed by a face without area
            middle = V[F[:, :2]].mean(1)
            new = len(V) + np.arange(len(F))
            a, b, c = F.T
            V, F = np.vstack([V, middle]), np.vstack([F, np.stack([a, new, b], axis=1), np.stack([a, new, c], axis=1)])
        case "faults":
            V = np.vstack([V, [[np.nan, 0, 0], [np.inf, 0, 0], [50, 0, 0]]])
            F = np.vstack([F, [[0, 1, len(V) - 3], [0, 1, len(V) - 2], [0, 0, 1], [3, 3, 3]]])
        case "slivers":
            V, F = (
                np.vstack([V, V[:50] + np.array([0, 1e-4, 0])]),
                np.vstack([F, np.stack([np.arange(50), np.arange(50) + len(V), np.arange(50) + 1], 1)]),
            )
        case "far away":
            V = V + np.array([1e4, -3e3, 5e4])
    return V, F


def assert_same_surface(raw: RawMesh) -> None:
    """No sample of either lies off the other, and their chamfer is that of two samplings of one."""
    mesh = clean(raw)
    whole = raw.F[np.isfinite(raw.V).all(1)[raw.F].all(1)]
    kept = np.unique(whole)
    V, F = raw.V[kept], np.searchsorted(kept, whole)
    centre, scale = normalise(V)[1:]
    V, clean_V = ((v - centre) / scale for v in (V, mesh.V))
    a, b, c = (
        sample_surface(*s, 3000, np.random.default_rng(i))[0] for i, s in enumerate([(V, F), (V, F), (clean_V, mesh.F)])
    )
    for points, onto in ((a, (clean_V, mesh.F)), (c, (V, F))):
        distance, _, _ = pcu.closest_points_on_mesh(points, *onto)
        assert distance.max() < 5e-6
    floor, chamfer = ((cKDTree(x).query(y)[0].mean() + cKDTree(y).query(x)[0].mean()) / 2 for x, y in ((a, b), (a, c)))
    assert chamfer < 1.1 * floor


@pytest.mark.parametrize("name", ["clean", "doubled", "soup", "T-junctions", "faults", "slivers", "far away"])
def test_cleaning_never_changes_the_surface(name):
    V, F = nasty(name)
    assert_same_surface(RawMesh(V, F, np.zeros(F.shape, np.uint8)))


@pytest.mark.skipif(not CORPUS.is_dir(), reason="the shared corpus is not here")
def test_cleaning_never_changes_the_surface_of_the_corpus():
    for source in Corpus.open(CORPUS, split_seed=0).models[::40]:
        assert_same_surface(load_mesh(source))


@needs_samples
def test_cleaning_never_changes_the_surface_of_raw_parts():
    for path in sorted((SAMPLES / "ikea_parts_double_sided").glob("*/*.obj")):
        assert_same_surface(load_mesh(ModelSource("0", "x", "v2", SAMPLES, path.relative_to(SAMPLES).as_posix())))


# Simplification


def test_simplification_keeps_shape_and_colours():
    solid = trimesh.creation.torus(1, 0.4, major_sections=160, minor_sections=80)
    V, F = np.array(solid.vertices), np.array(solid.faces)
    C = np.where(V[F].mean(1)[:, :1] > 0, np.uint8([200, 30, 30]), np.uint8([30, 30, 200]))
    simple = simplify(RawMesh(V, F, C, facts={"n_source_faces": 7}), 2000)
    assert len(simple.F) <= 2000
    assert simple.facts == {"n_source_faces": 7, "n_simplified_faces": len(F) - len(simple.F)}
    points, _ = sample_surface(simple.V, simple.F, 5000, np.random.default_rng(0))
    ring = np.linalg.norm(points[:, :2], axis=1) - 1
    assert np.abs(np.hypot(ring, points[:, 2]) - 0.4).max() < 0.02
    assert double_areas(simple.V, simple.F).sum() == pytest.approx(double_areas(V, F).sum(), rel=0.01)
    x = simple.V[simple.F].mean(1)[:, 0]
    clear = np.abs(x) > 0.05
    assert (simple.C[clear] == np.where(x[clear, None] > 0, [200, 30, 30], [30, 30, 200])).all()


def test_loose_triangles_cannot_be_simplified():
    V = np.random.default_rng(0).random((300, 3))
    F = np.arange(300).reshape(-1, 3)
    with pytest.raises(MeshError, match="too many faces: 100 cannot be simplified to 9; raise max_faces"):
        simplify(RawMesh(V, F, np.zeros(F.shape, np.uint8)), 9)
