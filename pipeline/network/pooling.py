"""What becomes of pools, and of reductions over a map's height and width: rules as in ``rules``."""

from __future__ import annotations

from dataclasses import replace

from torch import fx, nn

from frostbit.kernels.ir.program import Window
from frostbit.pipeline.network.call_site import Refused, Site, Value


def pair(site: Site, size: object) -> tuple[int, int]:
    """A size as two numbers (vertical, horizontal)."""
    if isinstance(size, int):
        return size, size
    if isinstance(size, (tuple, list)) and all(isinstance(each, int) for each in size):
        if len(size) == 1:
            return size[0], size[0]
        if len(size) == 2:
            return size[0], size[1]
    raise site.refuse(f"{site.called} with the size {size}", "give one or two whole numbers")


def _with_overhang(window: Window, size: tuple[int, int], result: tuple[int, int]) -> Window:
    """``window`` with the padding that lets it give ``result``, as ``ceil_mode`` asks."""
    top, left, bottom, right = window.pads
    less = window.output(*size)
    return replace(
        window,
        pads=(
            top,
            left,
            bottom + _reach_more(window, 0, size[0], result[0] - less[0]),
            right + _reach_more(window, 1, size[1], result[1] - less[1]),
        ),
    )


def _reach_more(window: Window, axis: int, size: int, more: int) -> int:
    """Padding at the end of an axis for ``more`` further positions of the window."""
    if not more:
        return 0
    reach = (window.kernel[axis] - 1) * window.dilation[axis] + 1
    unused = (size + 2 * window.pads[axis] - reach) % window.stride[axis]
    return more * window.stride[axis] - unused


def _window(
    site: Site, kernel_size: object, stride: object, padding: object, dilation: object
) -> Window:
    kernel = pair(site, kernel_size)
    step = kernel if stride is None or stride == [] else pair(site, stride)
    vertical, horizontal = pair(site, padding)
    pads = (vertical, horizontal, vertical, horizontal)
    return Window(kernel, step, pads, pair(site, dilation))


def max_pool(
    site: Site,
    input: fx.Node,
    kernel_size: object,
    stride: object = None,
    padding: object = 0,
    dilation: object = 1,
    ceil_mode: bool = False,
    return_indices: Refused = False,
) -> fx.Node:
    _, height, width = site.map_of(input)
    window = _window(site, kernel_size, stride, padding, dilation)
    pads = window.pads[:2]
    window = _with_overhang(window, (height, width), (site.shape[1], site.shape[2]))
    if not window.pads_less_than_kernel() or not window.always_meets(height, width):
        raise site.refuse("a window may lie in the padding alone", "pad less")
    pool = nn.MaxPool2d(window.kernel, window.stride, pads, window.dilation, ceil_mode=ceil_mode)
    return site.place(pool, input, _same_shape(site))


def _same_shape(site: Site) -> Value:
    channels, height, width = site.shape
    return Value(site.shape, (channels, height, width))


def avg_pool(
    site: Site,
    input: fx.Node,
    kernel_size: object,
    stride: object = None,
    padding: object = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> fx.Node:
    source = site.map_of(input)
    window = _window(site, kernel_size, stride, padding, 1)
    if ceil_mode and window.output(*source[1:]) != site.shape[1:]:
        raise site.refuse(
            f"ceil_mode=True cuts a window of the map {list(source[1:])}",
            "leave ceil_mode at False",
        )
    if any(window.pads) and not count_include_pad:
        raise site.refuse("count_include_pad=False cannot be converted", "leave it at True")
    if not window.pads_less_than_kernel():
        raise site.refuse("a window may lie in the padding alone", "pad less")
    pool = nn.AvgPool2d(
        window.kernel, window.stride, window.pads[:2], divisor_override=divisor_override
    )
    return site.place(pool, input, _same_shape(site))


def adaptive_avg_pool(site: Site, input: fx.Node, output_size: object) -> fx.Node:
    if _output(site, input, output_size) == (1, 1):
        return site.place(nn.AdaptiveAvgPool2d(1), input, _same_shape(site))
    kernel = _even_kernel(site, input, output_size)
    return input if kernel == (1, 1) else site.place(nn.AvgPool2d(kernel), input, _same_shape(site))


def adaptive_max_pool(
    site: Site, input: fx.Node, output_size: object, return_indices: Refused = False
) -> fx.Node:
    kernel = _even_kernel(site, input, output_size)
    return input if kernel == (1, 1) else site.place(nn.MaxPool2d(kernel), input, _same_shape(site))


def _output(site: Site, input: fx.Node, output_size: object) -> tuple[int, int]:
    _, height, width = site.map_of(input)
    wanted = output_size if isinstance(output_size, (tuple, list)) else (output_size, output_size)
    vertical, horizontal = (
        size if each is None else each for each, size in zip(wanted, (height, width), strict=True)
    )
    return pair(site, (vertical, horizontal))


def _even_kernel(site: Site, input: fx.Node, output_size: object) -> tuple[int, int]:
    """The window of an adaptive pool whose windows are all alike."""
    _, height, width = site.map_of(input)
    rows, columns = _output(site, input, output_size)
    if height % rows or width % columns:
        raise site.refuse(
            f"adaptive pooling of {height}x{width} to {rows}x{columns} has windows of unequal size",
            "choose a size that divides the map's",
        )
    return height // rows, width // columns


def mean(
    site: Site, input: fx.Node, dim: object = None, keepdim: bool = False, dtype: Refused = None
) -> fx.Node:
    return _reduced(site, input, dim, keepdim, nn.AdaptiveAvgPool2d(1), nn.AvgPool2d)


def amax(site: Site, input: fx.Node, dim: object = (), keepdim: bool = False) -> fx.Node:
    whole = nn.MaxPool2d(site.values[input].map[1:]) if input in site.values else None
    return _reduced(site, input, dim, keepdim, whole, nn.MaxPool2d)


def total(
    site: Site, input: fx.Node, dim: object = None, keepdim: bool = False, dtype: Refused = None
) -> fx.Node:
    """``sum``: the mean, times the number of values."""
    averaged = mean(site, input, dim, keepdim)
    before, after = site.values[input].map, site.values[averaged].map
    area = before[1] * before[2] // (after[1] * after[2])
    return site.affine(averaged, None, float(area), None, 0.0)


def _reduced(
    site: Site,
    input: fx.Node,
    dim: object,
    keepdim: bool,
    whole: nn.Module | None,
    partly: type[nn.AvgPool2d] | type[nn.MaxPool2d],
) -> fx.Node:
    """A pool over the axes ``dim``: the whole map, or its rows or its columns."""
    value = site.value(input)
    axes = (dim,) if isinstance(dim, int) else dim
    if value is None or whole is None or not isinstance(axes, (tuple, list)) or value.is_vector:
        raise site.refuse(f"{site.called} over {dim}", "reduce height and width: dim=(2, 3)")
    rank = len(value.shape) + 1
    reduced = {axis % rank for axis in axes}
    channels, height, width = value.map
    everything = {2, 3} if value.is_map else {2}
    if reduced == everything:
        node = site.put(whole, input, Value((channels, 1, 1), (channels, 1, 1)))
        return node if keepdim else site.flattened(node)
    if not value.is_map or reduced not in ({2}, {3}):
        raise site.refuse(f"{site.called} over {dim}", "reduce height and width: dim=(2, 3)")
    kernel = (height, 1) if reduced == {2} else (1, width)
    made = (channels, height // kernel[0], width // kernel[1])
    return site.put(partly(kernel), input, Value(site.shape, made))
