"""Strokes become ink on paper, photographed: 28x28 grey crops as a phone cuts them from a form.

A digit is traced to its centre line, redrawn with a pen of another width, bent, placed, laid on unevenly lit
paper beside whatever else the crop may show, and taken by a camera that blurs, sharpens and adds noise.
It stays the digit it was: a drawing that loses a loop, or too much of itself over the edge, is drawn again.
Lengths are in pixels of the 28x28 crop unless a name says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt
from skimage.morphology import skeletonize

SIZE = 28
SCALE = 4  # drawing is done at four times the crop's resolution
CANVAS = SIZE * SCALE
MARGIN = 8 * SCALE  # drawn beyond the crop's edge, to see what it cuts off
ATTEMPTS = 20  # at a drawing that shows the digit; then the last stands
TOUCH = 0.02  # share of a digit's ink that its neighbour may cover
LOOP = 0.8 * SCALE**2  # area of the least loop that can be seen
BLOT = 1.8  # times a stroke's usual width: a pool of ink, whose centre line is another figure
STRAIGHT = 0.12  # a bare one's breadth about its own axis, as a share of its length

FloatImage = npt.NDArray[np.float32]
Range = tuple[float, float]


@dataclass(frozen=True)
class Look:
    """What varies from crop to crop: ranges are drawn from evenly, shares are probabilities."""

    height: Range = (12.5, 24.0)  # of the digit
    aspect: Range = (0.78, 1.3)  # width over MNIST's own, at that height
    rotation: Range = (-0.16, 0.16)  # radians
    slant: Range = (-0.2, 0.28)  # shear of the vertical
    bend: float = 0.7  # amplitude of the smooth distortion
    overhang: float = 1.0  # how far a digit may reach over the crop's edge
    min_shown: float = 0.95  # of its ink that must lie within
    pen_width: Range = (1.0, 3.0)
    contrast: Range = (0.45, 0.97)  # share of light the ink takes
    faint: Range = (0.22, 0.45)  # the same for pencil and dry pens
    faint_share: float = 0.22
    paper: Range = (0.5, 0.98)
    gradient: float = 0.1  # change of light from edge to edge
    shadow_share: float = 0.05
    rule_share: float = 0.3  # form borders
    neighbour_share: float = 0.12  # part of the next digit
    speck_share: float = 0.1
    flag_share: float = 0.35  # of ones; half of them get a foot
    bar_share: float = 0.35  # of sevens
    blur: Range = (0.3, 0.8)
    sharpen_share: float = 0.35
    dashed_share: float = 0.25  # of form borders: dashed, or worn
    near_digit_share: float = 0.0  # of crops without a digit: most of one cut off, two, a tick
    noise: Range = (0.3, 3.0)  # grey levels
    jpeg_quality: tuple[int, int] = (85, 99)


FIELD = Look()  # as the field's crops look: data/test and data/calibration
WIDE = Look(  # wider than the field: half of data/raw, so that the model generalises
    height=(10.5, 26.5),
    aspect=(0.65, 1.5),
    rotation=(-0.28, 0.28),
    slant=(-0.34, 0.42),
    bend=1.2,
    overhang=2.0,
    min_shown=0.88,
    pen_width=(0.8, 4.0),
    contrast=(0.4, 1.0),
    faint=(0.16, 0.4),
    faint_share=0.25,
    paper=(0.4, 1.05),
    gradient=0.25,
    shadow_share=0.12,
    rule_share=0.45,
    neighbour_share=0.22,
    speck_share=0.18,
    flag_share=0.5,
    bar_share=0.5,
    blur=(0.2, 1.1),
    noise=(0.0, 5.0),
    jpeg_quality=(70, 100),
    dashed_share=0.5,
    near_digit_share=0.3,
)


def digit(
    stroke: npt.NDArray[np.uint8], label: int, others: npt.NDArray[np.uint8], look: Look, rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """One digit as a crop, uint8 [28, 28]. stroke: MNIST's [28, 28]; others: strokes [M, 28, 28] for neighbours."""
    for _ in range(ATTEMPTS):
        outline = _trace(stroke, label, look, rng)
        ink, shown = _draw(_place(outline, _digit_box(look, rng), look, rng), look, rng)
        if shown >= look.min_shown and _loops(ink > 0.5, LOOP) == outline.loops:
            break
    strength = _strength(look, rng)
    layers = [ink * strength]
    if rng.random() < look.neighbour_share:
        neighbour = _neighbour(others, look, rng)
        if (neighbour * ink).sum() < TOUCH * ink.sum():  # across the digit it would make another one of it
            layers.append(neighbour * strength)
    layers += _clutter(look, rng)
    return _photograph(layers, look, rng)


def noise(others: npt.NDArray[np.uint8], look: Look, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """A crop without one digit, uint8 [28, 28]: blank paper, shadow, borders, corners of strokes, smudges; where the
    look has them, cut digits, pairs of digits and ticks."""
    if look.near_digit_share and rng.random() < look.near_digit_share:
        return _photograph([_near_digit(others, look, rng) * _strength(look, rng), *_clutter(look, rng)], look, rng)
    layers: list[FloatImage] = []
    kind = rng.choice(["blank", "shadow", "rules", "corner", "smudge"], p=[0.3, 0.1, 0.2, 0.28, 0.12])
    if kind == "shadow":
        layers.append(_shadow(rng))
    elif kind == "rules":
        layers += [_rule(look, rng) for _ in range(rng.integers(1, 3))]
    elif kind == "corner":
        for _ in range(rng.integers(1, 3)):
            part = _blot(rng) if rng.random() < 0.25 else _corner(others, look, rng)
            layers.append(part * _strength(look, rng))
    elif kind == "smudge":
        layers.append(_smudge(rng))
    if kind not in ("rules", "shadow"):
        layers += _clutter(look, rng)
    return _photograph(layers, look, rng)


def encode(image: npt.NDArray[np.uint8], look: Look, rng: np.random.Generator) -> bytes:
    """The crop as a grey JPEG."""
    low, high = look.jpeg_quality
    done, buffer = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(low, high + 1))])
    if not done:
        raise OSError("OpenCV could not encode a JPEG")
    return buffer.tobytes()


# --- strokes -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Outline:
    """A traced stroke: the distance of each canvas point to its centre line, or (signed) to its edge."""

    distance: FloatImage  # at SCALE
    drawn: bool  # a centre line, to be drawn with a pen; else a full shape
    half_width: float  # of the full shape
    loops: int


def _trace(stroke: npt.NDArray[np.uint8], label: int, look: Look, rng: np.random.Generator) -> _Outline:
    big = cv2.resize(stroke, (CANVAS, CANVAS), interpolation=cv2.INTER_CUBIC)
    big = cv2.GaussianBlur(big, (0, 0), 1.6)
    full = _solid(big)
    loops = _loops(full, 0)
    line = skeletonize(full).astype(np.uint8)
    if line.sum() < SCALE * 6:  # a blot without a centre line
        return _Outline(_signed_distance(full), False, SCALE, loops)
    widths = cv2.distanceTransform(full.astype(np.uint8), cv2.DIST_L2, 3)[line > 0]
    half = float(np.median(widths))
    redrawn = cv2.distanceTransform(1 - line, cv2.DIST_L2, 3) <= half + 1.5
    blotted = (full & ~redrawn).sum() > 0.04 * full.sum()  # a loop run full of ink: a line would lose it
    blotted |= np.percentile(widths, 95) > BLOT * half
    extra = np.zeros_like(line)
    if label == 1 and rng.random() < look.flag_share:
        _flag(extra, line, rng)
    if label == 7 and rng.random() < look.bar_share:
        _bar(extra, line, rng)
    if blotted or rng.random() < 0.25:
        full |= cv2.dilate(extra, _disc(max(2, round(2 * half)))) > 0
        return _Outline(_signed_distance(full), False, half, loops)
    return _Outline(cv2.distanceTransform(1 - np.maximum(line, extra), cv2.DIST_L2, 5), True, half, loops)


def whole(stroke: npt.NDArray[np.uint8]) -> bool:
    """Whether a stroke [28, 28] came through the scanner in one piece, or two (a five's bar)."""
    big = cv2.resize(stroke, (CANVAS, CANVAS), interpolation=cv2.INTER_CUBIC)
    _, _, stats, _ = cv2.connectedComponentsWithStats((big > 60).astype(np.uint8))
    return int((stats[1:, cv2.CC_STAT_AREA] > SCALE**2).sum()) <= 2


def _solid(big: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Where the ink is: at the threshold that shows the most loops, so that small ones stay open."""
    candidates = []
    for threshold in (60, 110, 150, 180):
        solid = big > threshold
        pieces = cv2.connectedComponents(solid.astype(np.uint8))[0]
        candidates.append((_loops(solid, 0) - 2 * pieces, -abs(threshold - 110), solid))
    return max(candidates, key=lambda candidate: candidate[:2])[2]


def _loops(solid: npt.NDArray[np.bool_], least: float) -> int:
    """How many pieces of paper of at least that area the ink encloses."""
    paper = np.pad(~solid, 1, constant_values=True).astype(np.uint8)
    _, _, stats, _ = cv2.connectedComponentsWithStats(paper, connectivity=4)
    return int((stats[1:, cv2.CC_STAT_AREA] >= least).sum()) - 1  # less the paper around


def _signed_distance(solid: npt.NDArray[np.bool_]) -> FloatImage:
    inside = solid.astype(np.uint8)
    outer, inner = cv2.distanceTransform(1 - inside, cv2.DIST_L2, 5), cv2.distanceTransform(inside, cv2.DIST_L2, 5)
    return (outer - inner).astype(np.float32)


def _flag(extra: npt.NDArray[np.uint8], line: npt.NDArray[np.uint8], rng: np.random.Generator) -> None:
    """The up-stroke of a bare one, and for half of them its foot."""
    ys, xs = np.nonzero(line)
    _, breadths, _ = np.linalg.svd(np.stack([xs - xs.mean(), ys - ys.mean()]), full_matrices=False)
    if breadths[1] > STRAIGHT * breadths[0]:  # it has them already
        return
    top, bottom = np.argmin(ys), np.argmax(ys)
    height = max(ys[bottom] - ys[top], 20)
    length, angle = height * rng.uniform(0.16, 0.42), rng.uniform(0.4, 1.0)  # angle from the vertical
    start = np.array([xs[top], ys[top]])
    end = start + length * np.array([-np.sin(angle), np.cos(angle)])
    middle = (start + end) / 2 + rng.normal(0, 1.5, 2)
    _polyline(extra, [start, middle, end])
    if rng.random() < 0.5:
        half = height * rng.uniform(0.15, 0.4)
        tilt = rng.uniform(-0.2, 0.2)
        foot = np.array([xs[bottom], ys[bottom]])
        reach = half * np.array([np.cos(tilt), np.sin(tilt)])
        _polyline(extra, [foot - reach * rng.uniform(0.5, 1.2), foot, foot + reach * rng.uniform(0.6, 1.4)])


def _bar(extra: npt.NDArray[np.uint8], line: npt.NDArray[np.uint8], rng: np.random.Generator) -> None:
    """The cross-bar of a seven, through its stem."""
    ys, xs = np.nonzero(line)
    height = ys.max() - ys.min()
    row = int(ys.min() + height * rng.uniform(0.42, 0.66))
    near = xs[np.abs(ys - row) <= 2]
    if not len(near) or np.ptp(near) > 0.2 * height or np.ptp(xs) > 1.2 * height:  # no stem there, or a bar already
        return
    centre = np.array([np.median(near), row])
    tilt = rng.uniform(-0.3, 0.15)
    reach = height * np.array([np.cos(tilt), np.sin(tilt)])
    _polyline(extra, [centre - reach * rng.uniform(0.15, 0.42), centre + reach * rng.uniform(0.15, 0.48)])


def _polyline(canvas: npt.NDArray[np.uint8], points: list[npt.NDArray[np.float64]]) -> None:
    cv2.polylines(canvas, [np.round(points).astype(np.int32)], False, 1)


def _disc(width: int) -> npt.NDArray[np.uint8]:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width)).astype(np.uint8)


def _digit_box(look: Look, rng: np.random.Generator) -> tuple[float, float, float, float]:
    """Height, width factor and the centre's place (x and y as shares of the free room, may be outside 0..1)."""
    return rng.uniform(*look.height), np.exp(rng.uniform(*np.log(look.aspect))), _share(rng), _share(rng)


def _share(rng: np.random.Generator) -> float:
    return float(np.clip(rng.normal(0.5, 0.28), 0, 1))


def _place(outline: _Outline, box: tuple[float, float, float, float], look: Look, rng: np.random.Generator) -> _Outline:
    """The outline turned, slanted, bent and moved into the crop's canvas, with MARGIN around."""
    height, aspect, at_x, at_y = box
    ys, xs = np.nonzero(outline.distance <= 0)
    scale = height * SCALE / max(ys.max() - ys.min(), SCALE * 10)
    turn, slant = rng.uniform(*look.rotation), rng.uniform(*look.slant)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    matrix = matrix @ np.array([[1, -slant], [0, 1]]) @ np.diag([scale * aspect, scale])
    moved = matrix @ np.stack([xs, ys]).astype(np.float64)
    low, high = moved.min(axis=1), moved.max(axis=1)
    size = high - low
    limit = CANVAS + SCALE * look.overhang
    if (size > limit).any():
        shrink = float((limit / size).min())
        matrix, low, size = matrix * shrink, low * shrink, size * shrink
    over = np.minimum(SCALE * rng.uniform(-1.5, look.overhang), 0.12 * size)  # of a narrow one little is cut off
    room = CANVAS + 2 * over - size
    offset = -over + room * np.array([at_x, at_y]) - low
    inverse = np.linalg.inv(matrix)
    ends = np.arange(-MARGIN, CANVAS + MARGIN)
    grid = np.stack(np.meshgrid(ends, ends), axis=-1).astype(np.float32)
    grid += _smooth(2, look.bend * SCALE, 4, rng, len(ends)) - offset.astype(np.float32)
    source = grid @ inverse.T.astype(np.float32)
    far = float(CANVAS)
    placed = cv2.remap(
        outline.distance,
        source[..., 0],
        source[..., 1],
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=far,
    )
    stretch = float(np.sqrt(abs(np.linalg.det(matrix))))
    return replace(outline, distance=placed * stretch, half_width=outline.half_width * stretch)


def _smooth(channels: int, amplitude: float, cells: int, rng: np.random.Generator, size: int = CANVAS) -> FloatImage:
    """A smooth random field [size, size, channels] of the given standard deviation at its knots."""
    knots = rng.normal(0, amplitude, (cells, cells, channels)).astype(np.float32)
    return cv2.resize(knots, (size, size), interpolation=cv2.INTER_CUBIC).reshape(size, size, channels)


def _draw(placed: _Outline, look: Look, rng: np.random.Generator) -> tuple[FloatImage, float]:
    """Ink coverage 0..1 of the crop, and the share of the ink that lies within it.

    A centre line is drawn with the pen; a full shape is brought nearer to the pen's width.
    """
    low, high = look.pen_width
    half_pen = (low + (high - low) * rng.beta(1.6, 2.4)) * SCALE / 2
    if placed.drawn:
        reach = half_pen
    else:
        change = rng.uniform(0.3, 0.9) * (half_pen - placed.half_width)
        reach = float(np.clip(change, -0.5 * placed.half_width, 0.6 * SCALE))
    pressure = _smooth(1, 0.12 * half_pen, 5, rng, len(placed.distance))[..., 0]
    soft = rng.uniform(1.0, 3.0)
    coverage = np.clip((reach + pressure - placed.distance) / soft + 0.5, 0, 1)
    if rng.random() < 0.3:  # grain of pencil, skips of a dry pen
        coverage *= np.clip(1 + _smooth(1, 0.14, 24, rng, len(coverage))[..., 0], 0.3, 1)
    within = coverage[MARGIN:-MARGIN, MARGIN:-MARGIN]
    return np.ascontiguousarray(within, np.float32), float(within.sum() / max(coverage.sum(), 1e-6))


def _strength(look: Look, rng: np.random.Generator) -> float:
    return rng.uniform(*(look.faint if rng.random() < look.faint_share else look.contrast))


# --- what else a crop shows ----------------------------------------------------------------------------------


def _neighbour(others: npt.NDArray[np.uint8], look: Look, rng: np.random.Generator) -> FloatImage:
    """The edge of the next digit, reaching into the crop from the left or the right."""
    return _reaching_in(others, look, rng, depth=rng.uniform(0.5, 4.0), side=int(rng.integers(2)), along=_share(rng))


def _corner(others: npt.NDArray[np.uint8], look: Look, rng: np.random.Generator) -> FloatImage:
    """A stroke's end or bow at the crop's border: too little of it to be a digit."""
    return _reaching_in(
        others,
        look,
        rng,
        depth=rng.uniform(1.0, 5.5),
        side=int(rng.integers(4)),
        along=rng.random(),
        corner=rng.random() < 0.5,
    )


def _near_digit(others: npt.NDArray[np.uint8], look: Look, rng: np.random.Generator) -> FloatImage:
    """Under half a digit, two digits side by side, or a tick."""
    kind = rng.choice(["cut", "pair", "tick"])
    if kind == "cut":
        depth = rng.uniform(4.0, 0.45 * look.height[0] + 2)
        return _reaching_in(others, look, rng, depth=depth, side=int(rng.integers(4)), along=_share(rng))
    if kind == "pair":
        pair = [_side(others, look, rng, at_x) for at_x in (0.0, 1.0)]
        return np.maximum(*pair)
    low = rng.uniform((0.2, 0.55), (0.5, 0.9))
    points = [low - rng.uniform((0.08, 0.08), (0.25, 0.25)), low, low + rng.uniform((0.2, -0.8), (0.5, -0.3))]
    line = np.ones((CANVAS + 2 * MARGIN,) * 2, np.uint8)
    cv2.polylines(line, [np.round(np.array(points) * CANVAS + MARGIN).astype(np.int32)], False, 0)
    distance = cv2.distanceTransform(line, cv2.DIST_L2, 5)
    return _draw(_Outline(distance, True, SCALE, 0), look, rng)[0]


def _side(others: npt.NDArray[np.uint8], look: Look, rng: np.random.Generator, at_x: float) -> FloatImage:
    """A digit of half the crop's breadth, at its left (0) or right (1)."""
    outline = _trace(others[rng.integers(len(others))], -1, look, rng)
    placed = _place(outline, (rng.uniform(11, 18), rng.uniform(0.5, 0.75), at_x, _share(rng)), look, rng)
    return _draw(placed, look, rng)[0]


def _reaching_in(
    others: npt.NDArray[np.uint8],
    look: Look,
    rng: np.random.Generator,
    *,
    depth: float,
    side: int,
    along: float,
    corner: bool = False,
) -> FloatImage:
    """Another digit of which only `depth` pixels reach over one side (0 left, 1 right, 2 top, 3 bottom)."""
    outline = _trace(others[rng.integers(len(others))], -1, look, rng)
    height, aspect, _, _ = _digit_box(look, rng)
    centred = _place(outline, (height, aspect, 0.5, 0.5), look, rng)
    ys, xs = np.nonzero(centred.distance <= SCALE / 2)
    if not len(ys):
        return np.zeros((CANVAS, CANVAS), np.float32)
    reach, end = depth * SCALE + MARGIN, CANVAS + MARGIN
    dx = {0: reach - xs.max(), 1: end - depth * SCALE - xs.min()}.get(side)
    dy = {2: reach - ys.max(), 3: end - depth * SCALE - ys.min()}.get(side)
    span = (along - 0.5) * CANVAS * 0.7
    if corner:  # and only a quarter of it along the other axis
        span = (CANVAS * 0.55) * (1 if along > 0.5 else -1)
    shift = np.array([[1, 0, span if dx is None else dx], [0, 1, span if dy is None else dy]], np.float64)
    moved = cv2.warpAffine(
        centred.distance, shift, centred.distance.shape, borderMode=cv2.BORDER_CONSTANT, borderValue=float(CANVAS)
    )
    return _draw(replace(centred, distance=moved), look, rng)[0]


def _clutter(look: Look, rng: np.random.Generator) -> list[FloatImage]:
    layers = []
    if rng.random() < look.rule_share:
        layers.append(_rule(look, rng))
        if rng.random() < 0.25:
            layers.append(_rule(look, rng))
    if rng.random() < look.shadow_share:
        layers.append(_shadow(rng))
    if rng.random() < look.speck_share:
        layers.append(_specks(rng))
    return layers


def _rule(look: Look, rng: np.random.Generator) -> FloatImage:
    """A form's printed line along one edge of the crop, sometimes with the dark beyond it."""
    canvas = np.zeros((CANVAS, CANVAS), np.float32)
    at = abs(rng.normal(0, 1.1)) * SCALE
    tilt = rng.normal(0, 0.03) * CANVAS
    width = max(1, round(rng.uniform(0.4, 1.6) * SCALE))
    cv2.line(canvas, (-2, round(at - tilt / 2)), (CANVAS + 2, round(at + tilt / 2)), 1.0, width, cv2.LINE_AA)
    if rng.random() < look.dashed_share:
        canvas *= (np.clip(_smooth(1, 1.0, 14, rng)[..., 0] + 0.6, 0, 1)).astype(np.float32)
    return np.ascontiguousarray(np.rot90(canvas, int(rng.integers(4)))) * np.float32(rng.uniform(0.08, 0.75))


def _shadow(rng: np.random.Generator) -> FloatImage:
    """The soft edge of a shadow somewhere across the crop."""
    angle, at, soft = rng.uniform(0, 2 * np.pi), rng.normal(0, 0.35) * CANVAS, rng.uniform(0.02, 0.5) * CANVAS
    y, x = np.mgrid[:CANVAS, :CANVAS] - CANVAS / 2
    edge = (x * np.cos(angle) + y * np.sin(angle) - at) / soft
    return (rng.uniform(0.04, 0.4) / (1 + np.exp(-np.clip(edge, -30, 30)))).astype(np.float32)


def _blot(rng: np.random.Generator) -> FloatImage:
    """A thick stroke's end just inside a corner."""
    canvas = np.zeros((CANVAS, CANVAS), np.float32)
    corner = rng.integers(0, 2, 2) * CANVAS
    start, end = np.round(corner + rng.normal(0, 5 * SCALE, (2, 2))).astype(int).tolist()
    cv2.line(canvas, start, end, 1.0, round(rng.uniform(2, 9) * SCALE), cv2.LINE_AA)
    return cv2.GaussianBlur(canvas, (0, 0), rng.uniform(0.5, 5))


def _specks(rng: np.random.Generator) -> FloatImage:
    canvas = np.zeros((CANVAS, CANVAS), np.float32)
    for _ in range(rng.integers(1, 5)):
        centre = tuple(int(v) for v in rng.integers(0, CANVAS, 2))
        cv2.circle(canvas, centre, round(rng.uniform(0.2, 0.8) * SCALE), rng.uniform(0.1, 0.7), -1, cv2.LINE_AA)
    return canvas


def _smudge(rng: np.random.Generator) -> FloatImage:
    """A rubbed-out or smeared patch: shapeless, without an edge."""
    patch = _smooth(1, 1.0, int(rng.integers(3, 9)), rng)[..., 0]
    y, x = np.mgrid[:CANVAS, :CANVAS].astype(np.float32)
    cx, cy = rng.uniform(0, CANVAS, 2)
    spread = rng.uniform(0.12, 0.4) * CANVAS
    window = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * spread**2))
    return np.clip(patch * window, 0, 1).astype(np.float32) * np.float32(rng.uniform(0.08, 0.45))


# --- the photograph ------------------------------------------------------------------------------------------


def _photograph(layers: list[FloatImage], look: Look, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Paper, light and ink through the camera: uint8 [28, 28]."""
    paper = np.full((CANVAS, CANVAS), rng.uniform(*look.paper), np.float32)
    y, x = np.mgrid[:CANVAS, :CANVAS].astype(np.float32) / CANVAS - 0.5
    angle = rng.uniform(0, 2 * np.pi)
    slope = abs(rng.normal(0, look.gradient / 2))
    paper *= 1 + slope * (x * np.cos(angle) + y * np.sin(angle)).astype(np.float32)
    paper *= 1 + _smooth(1, rng.uniform(0, 0.012), 12, rng)[..., 0]
    for layer in layers:
        paper *= 1 - layer
    light = np.clip(paper, 0, 1) * 255
    crop = cv2.resize(light, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    crop = cv2.GaussianBlur(crop, (0, 0), rng.uniform(*look.blur))
    if rng.random() < look.sharpen_share:
        crop += rng.uniform(0.3, 1.2) * (crop - cv2.GaussianBlur(crop, (0, 0), rng.uniform(0.8, 1.6)))
    crop += rng.normal(0, rng.uniform(*look.noise), crop.shape)
    return np.clip(np.round(crop), 0, 255).astype(np.uint8)
