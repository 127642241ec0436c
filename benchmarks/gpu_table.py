"""The tables of benchmarks/gpu.py from its rows. Imports no torch."""

SHIPPED, SHIPPED_BF16 = "diffusers' parts, as shipped", "diffusers' parts, bf16"


def tables(rows):
    """Markdown of all rows: {key: row}, each with what, network, batch, variant, or with "failed" in its place."""
    rate = next((row["tflops"] for row in rows.values() if row["what"] == "matrix rate" and "tflops" in row), None)
    parts = [_head(rows, rate), _training(rows, rate), _sampling(rows), _profiles(rows), _failures(rows)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(rows, rate):
    machine = next((row["machine"] for row in rows.values() if "machine" in row), "")
    said = f"Measured bf16 matrix rate: {rate:.3g} TFLOP/s." if rate else ""
    return f"{machine} {said}".strip()


def _of(rows, what):
    return [row for row in rows.values() if row["what"] == what and "failed" not in row]


def _training(rows, rate):
    found = _of(rows, "training")
    if not found:
        return ""
    lines = [
        "| network | batch | loop | dtype | ms a step | images/s | times as shipped | times bf16 | TFLOP/s "
        "| share of matrix rate | share of bare network | peak GB |",
        "|---|---:|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    speeds = {(row["network"], row["batch"], row["variant"]): row["images_per_second"] for row in found}
    for row in found:
        place, speed = (row["network"], row["batch"]), row["images_per_second"]
        against = [_ratio(speed, speeds.get((*place, base))) for base in (SHIPPED, SHIPPED_BF16)]
        flops = speed * row["flops_per_image"] / 1e12
        share = f"{flops / rate:.3f}" if rate else ""
        bare = f"{row['bare_step'] / row['step']:.3f}" if "bare_step" in row else ""
        peak = f"{row['peak_bytes'] / 1e9:.1f}" if "peak_bytes" in row else ""
        lines.append(
            f"| {row['network']} | {row['batch']} | {row['variant']} | {row['dtype']} | {row['step'] * 1e3:.2f} "
            f"| {speed:.1f} | {' | '.join(against)} | {flops:.3g} | {share} | {bare} | {peak} |"
        )
    return "\n".join(lines)


def _ratio(speed, base):
    return f"{speed / base:.2f}" if base else ""


def _sampling(rows):
    found = _of(rows, "sampling")
    if not found:
        return ""
    lines = [
        "| network | batch | sampler | dtype | calls | images/s | share of bare network |",
        "|---|---:|---|---|---:|---:|---:|",
    ]
    for row in found:
        lines.append(
            f"| {row['network']} | {row['batch']} | ddim | {row['dtype']} | {row['calls']} "
            f"| {row['images_per_second']:.1f} | {row['bare'] / row['seconds']:.3f} |"
        )
    return "\n".join(lines)


def _profiles(rows):
    parts = []
    for row in _of(rows, "profile"):
        shares = sorted({**row["shares"], "idle": row["idle"]}.items(), key=lambda item: -item[1])
        lines = [
            f"Where a step goes: {row['network']}, batch {row['batch']}, {row['variant']}, {row['step'] * 1e3:.2f} ms.",
            "",
            "| kind of kernel | share of the step |",
            "|---|---:|",
            *(f"| {kind} | {share:.3f} |" for kind, share in shares),
            "",
            "| largest kernels | share of the step |",
            "|---|---:|",
            *(f"| `{name}` | {share:.3f} |" for name, share in row["largest"]),
        ]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _failures(rows):
    failed = [(key, row["failed"]) for key, row in rows.items() if "failed" in row]
    return "\n".join(f"- not measured: {key}: {reason}" for key, reason in failed)
