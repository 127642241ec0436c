"""What a training leaves in its run's folder beside log and checkpoints: weights and, last, the record."""

from safetensors.torch import save_file

from ..files import atomic_path, sha256_file, write_json
from ..provenance import provenance


def save_weights(path, network):
    """Write a network's state as safetensors, atomically."""
    with atomic_path(path) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, temporary)


def remove_half_written(run):
    """Remove what killed writers left in a run's folder, whose lock is held: half-written files under hidden names."""
    for leftover in run.folder.glob(f".*-{'?' * 8}.*"):
        leftover.unlink(missing_ok=True)


def write_record(run, config, data, network, seconds, snapshots, shares):
    """Write the record of a complete run, and the weights of its last step, which it names.

    data: the `ImageSet`. seconds: of the steps alone. snapshots: {step: path} of the EMA weights. shares: lists of
    (first step, processes, backend), in order of the steps: who took them.
    """
    raw = run.folder / f"raw-{config.steps * config.batch_size:09d}.safetensors"
    save_weights(raw, network)
    _, processes, backend = shares[-1]
    write_json(
        run.folder / "record.json",
        {
            "name": run.name,
            "config": run.config,
            "data": {"name": data.name, "fingerprint": data.fingerprint, "images": len(data.images)},
            "parameters": sum(p.numel() for p in network.parameters()),
            "images": config.steps * config.batch_size,
            "steps": config.steps,
            "seconds": seconds,
            "images_per_second": config.steps * config.batch_size / seconds,
            "processes": processes,
            "backend": backend,
            "process_history": _history(shares, config.steps),
            "snapshots": [
                {"images": step * config.batch_size, "file": path.name, "sha256": sha256_file(path)}
                for step, path in snapshots.items()
            ],
            "raw": {"file": raw.name, "sha256": sha256_file(raw)},
            "log": {"file": "log.jsonl", "sha256": sha256_file(run.folder / "log.jsonl")},
            **provenance(config.device, config.threads),
        },
    )


def _history(shares, steps):
    ends = [first for first, _, _ in shares[1:]] + [steps]
    return [
        {"steps": [first, end], "processes": processes, "backend": backend}
        for (first, processes, backend), end in zip(shares, ends, strict=True)
    ]
