"""Draws a scene with MuJoCo and reads off the exact truth of what is seen. The only file that imports mujoco.

One tiny model holds the meshes and textures and is compiled once a renderer; objects are written straight into the
list of things to draw, so a new scene costs no compilation. `MUJOCO_GL` is set to `egl` on Linux when it is unset
(it has to be, before mujoco is imported). A renderer belongs to the process and thread that made it.
"""

from __future__ import annotations

import os
import sys

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from theworld.data.synthetic.kinds import KINDS, Vector, paint_colour
from theworld.data.synthetic.layout import Scene, SceneObject, projected_box
from theworld.data.synthetic.rooms import Block
from theworld.data.synthetic.shapes import SHAPES
from theworld.data.synthetic.truth import ObjectTruth

if sys.platform == "linux":
    if "mujoco" in sys.modules and "MUJOCO_GL" not in os.environ:
        raise ImportError(
            "mujoco was imported before theworld's renderer without MUJOCO_GL, so it expects a screen; "
            "set MUJOCO_GL=egl in the environment, or import theworld.data.synthetic.render first"
        )
    os.environ.setdefault("MUJOCO_GL", "egl")
try:
    import mujoco
except ImportError as error:
    raise ImportError(
        "mujoco is not installed, and drawing synthetic scenes needs it: pip install 'theworld[synthetic]'"
    ) from error

Array = NDArray[np.float64]

MIN_PIXELS = 0.004
"""Share of the image that an object must cover to count as seen."""
MIN_EXTENT = 0.8
"""How much of the object's unhindered width and height in the image its visible mask must span."""
MAX_GEOMS = 400

_TEXTURES = {
    "tiles": 'builtin="flat" mark="edge" rgb1="0.97 0.97 0.97" markrgb="0.82 0.82 0.82"',
    "planks": 'builtin="gradient" rgb1="1 1 1" rgb2="0.84 0.84 0.84"',
    "checker": 'builtin="checker" rgb1="1 1 1" rgb2="0.88 0.88 0.88"',
}
_MATERIALS = {"tiles": "3 3", "planks": "1 6", "checker": "2 2"}


class SceneRenderer:
    """An off-screen MuJoCo renderer of square images.

    Args:
        image_size: Side of the images in pixels.
    """

    def __init__(self, image_size: int):
        if not 16 <= image_size <= 1024:
            raise ValueError(f"image_size is {image_size} pixels; expected 16 to 1024")
        self.image_size = image_size
        self.model = mujoco.MjModel.from_xml_string(_model_xml(2 * image_size))
        self.gl_context = mujoco.GLContext(2 * image_size, 2 * image_size)
        self.gl_context.make_current()
        self.context = mujoco.MjrContext(self.model, mujoco.mjtFontScale.mjFONTSCALE_50.value)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self.context)
        self.drawing = mujoco.MjvScene(self.model, maxgeom=MAX_GEOMS)

    def close(self) -> None:
        """Frees the graphics memory; the renderer is of no use afterwards."""
        self.context.free()
        self.gl_context.free()

    def picture(self) -> NDArray[np.uint8]:
        """uint8[H, W, 3], every pixel the mean of 2 × 2 drawn ones (faster here than the driver's multisampling)."""
        fine = self._read(2 * self.image_size, identities=False).astype(np.uint16)
        rows = fine[::2] + fine[1::2]
        return ((rows[:, ::2] + rows[:, 1::2] + 2) // 4).astype(np.uint8)

    def identities(self) -> NDArray[np.int32]:
        """int32[H, W], the number of the object seen in each pixel, -1 for the room."""
        code = self._read(self.image_size, identities=True).astype(np.int32)
        return code[..., 0] + 256 * code[..., 1] + 65536 * code[..., 2] - 1

    def _read(self, side: int, *, identities: bool) -> NDArray[np.uint8]:
        self.drawing.flags[mujoco.mjtRndFlag.mjRND_SEGMENT] = identities
        self.drawing.flags[mujoco.mjtRndFlag.mjRND_IDCOLOR] = identities
        viewport = mujoco.MjrRect(0, 0, side, side)
        mujoco.mjr_render(viewport, self.drawing, self.context)
        pixels = np.empty((side, side, 3), dtype=np.uint8)
        mujoco.mjr_readPixels(pixels, None, viewport, self.context)
        return pixels[::-1]


def render_scene(renderer: SceneRenderer, scene: Scene) -> tuple[NDArray[np.uint8], tuple[ObjectTruth, ...]]:
    """Draws the scene.

    Args:
        renderer: Made in this process; its image size is used.
        scene: What to draw.

    Returns:
        uint8[H, W, 3] RGB, and the truth of each object that is large enough and mostly visible, in scene order.
    """
    renderer.gl_context.make_current()
    drawing = renderer.drawing
    drawing.ngeom = 0
    for block in scene.blocks:
        _add_block(renderer, block)
    for number, thing in enumerate(scene.objects):
        _add_object(renderer, thing, number)
    _aim(drawing, scene)
    rgb, numbers = renderer.picture(), renderer.identities()
    seen = (_truth(scene, thing, numbers == number) for number, thing in enumerate(scene.objects))
    return rgb, tuple(truth for truth in seen if truth is not None)


def _truth(scene: Scene, thing: SceneObject, mask: NDArray[np.bool_]) -> ObjectTruth | None:
    side = len(mask)
    if mask.sum() < MIN_PIXELS * mask.size:
        return None
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    whole = projected_box(thing.surface(), scene.camera) * side
    width, height = whole[2:] - whole[:2]
    if box[2] - box[0] < MIN_EXTENT * width or box[3] - box[1] < MIN_EXTENT * height:
        return None
    rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    camera = scene.camera.to_camera(np.array([thing.centre]))[0]
    return ObjectTruth(
        kind=thing.kind,
        colour=thing.colour,
        centre=_rounded(thing.centre),
        camera=_rounded((camera[0], camera[1], camera[2])),
        size=_rounded(thing.size),
        yaw=round(thing.yaw, 4),
        box=box,
        rle={"size": [side, side], "counts": rle["counts"].decode()},
        pixels=int(mask.sum()),
    )


def _rounded(values: Vector) -> Vector:
    x, y, z = (round(float(v), 4) for v in values)
    return (x, y, z)


def _add_block(renderer: SceneRenderer, block: Block) -> None:
    material = -1
    if block.material != "plain":
        material = renderer.model.material(block.material).id
    geom = _add(renderer, "box", np.array(block.centre), np.diag(block.size), block.rgb, -1)
    geom.matid = material
    geom.castshadow = block.casts_shadow


def _add_object(renderer: SceneRenderer, thing: SceneObject, number: int) -> None:
    frame, centre = thing.transform, np.array(thing.centre)
    for part in KINDS[thing.kind].parts:
        rgb = paint_colour(part.paint, thing.rgb, thing.colour)
        _add(renderer, part.shape, centre + frame @ part.centre, frame * np.array(part.size), rgb, number)


def _add(
    renderer: SceneRenderer, shape_name: str, centre: Array, frame: Array, rgb: Vector, number: int
) -> mujoco.MjvGeom:
    """Appends a unit shape, stretched and turned by `frame` and moved to `centre`."""
    shape, drawing = SHAPES[shape_name], renderer.drawing
    geom = drawing.geoms[drawing.ngeom]
    kind = getattr(mujoco.mjtGeom, f"mjGEOM_{shape.primitive.upper()}")
    mujoco.mjv_initGeom(geom, kind, np.ones(3), np.zeros(3), np.eye(3).ravel(), np.array([*rgb, 1.0], dtype=np.float32))
    if shape.primitive == "mesh":
        # The compiler moves a mesh to its centre of mass and principal axes; the frame takes that back.
        mesh = renderer.model.mesh(shape_name).id
        turn = np.empty(9)
        mujoco.mju_quat2Mat(turn, renderer.model.mesh_quat[mesh])
        geom.dataid = 2 * mesh
        geom.pos[:] = centre + frame @ renderer.model.mesh_pos[mesh]
        geom.mat[:] = frame @ turn.reshape(3, 3)
    else:
        frame = frame @ shape.turn
        lengths = np.linalg.norm(frame, axis=0)
        geom.size[:] = lengths / 2
        geom.pos[:] = centre
        geom.mat[:] = frame / lengths
    geom.matid, geom.castshadow = -1, 1
    geom.segid = number
    geom.objid = number
    geom.objtype = mujoco.mjtObj.mjOBJ_GEOM
    geom.category = mujoco.mjtCatBit.mjCAT_DYNAMIC
    geom.specular, geom.shininess, geom.reflectance = 0.15, 0.3, 0.0
    drawing.ngeom += 1
    return geom


def _aim(drawing: mujoco.MjvScene, scene: Scene) -> None:
    """Sets camera and lights. MuJoCo has two eyes; both are ours."""
    _, down, forward = scene.camera.axes
    near, far = 0.05, 30.0
    half = near * np.tan(np.radians(scene.camera.field_of_view) / 2)
    for eye in drawing.camera:
        eye.pos[:] = scene.camera.position
        eye.forward[:], eye.up[:] = forward, -down
        eye.frustum_center, eye.frustum_width = 0.0, half
        eye.frustum_bottom, eye.frustum_top = -half, half
        eye.frustum_near, eye.frustum_far = near, far
        eye.orthographic = 0
    drawing.enabletransform = 0
    drawing.nlight = 2
    _shine(drawing.lights[0], np.array(scene.camera.position), scene.camera.axes[2], ambient=0.42, diffuse=0.35)
    drawing.lights[0].headlight, drawing.lights[0].castshadow = 1, 0
    direction = np.array(scene.light) / np.linalg.norm(scene.light)
    focus = np.array(scene.camera.position) + scene.camera.axes[2] * 2
    _shine(drawing.lights[1], focus - direction * 4, direction, ambient=0.0, diffuse=0.5)
    drawing.lights[1].headlight, drawing.lights[1].castshadow = 0, 1


def _shine(light: mujoco.MjvLight, position: Array, direction: Array, *, ambient: float, diffuse: float) -> None:
    light.type = mujoco.mjtLightType.mjLIGHT_DIRECTIONAL
    light.pos[:], light.dir[:] = position, direction
    light.ambient[:], light.diffuse[:], light.specular[:] = ambient, diffuse, 0.1
    light.attenuation[:] = (1.0, 0.0, 0.0)
    light.cutoff, light.exponent = 45.0, 1.0


def _model_xml(image_size: int) -> str:
    """The model: one mesh a shape, the textures, and a frame buffer of the right size."""
    meshes = "".join(
        f'<mesh name="{name}" inertia="shell" vertex="{" ".join(f"{v:.6f}" for v in shape.points.ravel())}" '
        f'face="{" ".join(map(str, shape.faces.ravel()))}"/>'
        for name, shape in SHAPES.items()
        if shape.primitive == "mesh"
    )
    textures = "".join(
        f'<texture name="{name}" type="2d" width="64" height="64" {look}/>'
        f'<material name="{name}" texture="{name}" texuniform="true" texrepeat="{_MATERIALS[name]}"/>'
        for name, look in _TEXTURES.items()
    )
    return (
        f'<mujoco><visual><global offwidth="{image_size}" offheight="{image_size}"/>'
        '<quality shadowsize="512" offsamples="0" numslices="20" numstacks="10" numquads="1"/></visual>'
        f"<asset>{textures}{meshes}</asset><worldbody/></mujoco>"
    )
