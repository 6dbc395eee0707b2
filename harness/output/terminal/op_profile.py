"""Where a variant's time goes, on the terminal."""

from __future__ import annotations

from harness.output.formats.figures import size
from harness.output.terminal.style import fit, grid
from harness.tools.op_profile import Profile, Step

KERNELS_SHOWN = 8


def profile(found: Profile, layers: int) -> str:
    """Kinds of kernels, the slowest layers, the roofline."""
    kernels = [
        (name, str(count), _ms(seconds), f"{seconds / found.latency_s:.1%}")
        for name, count, seconds in found.by_kernel()[:KERNELS_SHOWN]
    ]
    parts = [grid(kernels, ("kernel", "number", "time", "share"))]
    slowest = sorted(found.steps, key=lambda step: -step.seconds)[:layers]
    if slowest:
        rows = [_row(step, found) for step in slowest]
        parts.append(grid(rows, ("slowest layers", "kernel", "time", "of the peak"), left=2))
    reached = found.macs / found.latency_s
    peak, memory = found.peak_macs_per_s, found.peak.bytes_per_s
    parts.append(
        f"{found.latency_s * 1e3:.2f} ms an inference, {found.delegated_share:.1%} of it in the delegate; "
        f"with the profiler on {found.profiled_s * 1e3:.2f} ms, the times above are scaled to the former\n"
        f"{found.macs / 1e9:.3f} GMAC, at least {size(found.moved_bytes)} read and written\n"
        f"the measured peak there: {peak / 1e9:.0f} GMAC/s {'int8' if found.quantized else 'float'}, "
        f"{memory / 1e9:.1f} GB/s from memory\n"
        f"the variant reaches {reached / 1e9:.1f} GMAC/s, {reached / peak:.0%} of the peak; "
        f"the roofline allows {found.min_s * 1e3:.2f} ms, {found.min_s / found.latency_s:.0%} of what it takes"
    )
    if found.profiled_s < found.latency_s:
        parts.append("slower without the profiler than with it: the machine was busy meanwhile; profile again")
    return fit("\n\n".join(parts))


def _row(step: Step, found: Profile) -> tuple[str, ...]:
    name = step.work.name.split(";")[0] if step.work else "-"
    share = f"{step.work.macs / step.seconds / found.peak_macs_per_s:.0%}" if step.work and step.seconds else "-"
    return name, step.kernel, _ms(step.seconds), share


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3f} ms"
