"""Side by side: DARE on sharded checkpoints by didact and by the package mergekit, the same files in, files out.

python benchmarks/dare_mergekit.py --mergekit VENV/bin/mergekit-yaml

mergekit pins other versions of what didact uses, so it lives in an environment of its own:
python -m venv VENV && VENV/bin/pip install mergekit

Both run as processes of their own on three checkpoints of a small Llama architecture in shards of 32 MB. With nothing
dropped the two must agree to rounding, but for the few positions where the models' deltas cancel exactly: TIES then
takes the sign of most positions, mergekit plus. With drops they agree in expectation only: mergekit scales each sparse
tensor so that its L1 norm is the dense one's, which is 1 / (1 - rate) up to chance; the table shows how far it is off.
Time and peak memory are of whole processes, interpreter and imports included; the last columns take off what the
same command needs for a checkpoint of a few kilobytes.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils.logging import disable_progress_bar

from didact.reusing.deltas import Checkpoint

DELTA = 2e-3  #: spread of the fine-tuned models' differences to the base
SEEDS = 3
Run = tuple[float, float, float]  #: wall seconds, processor seconds, peak MB
OURS = """
import sys, json
from didact.reusing.dare import DARE
job = json.loads(sys.argv[1])
DARE(**job["settings"]).merge_checkpoints(job["base"], job["models"], job["out"], seed=job["seed"])
"""


def main() -> None:
    disable_progress_bar()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mergekit", required=True, help="path of mergekit-yaml in its own environment")
    parser.add_argument("--width", type=int, default=768, help="hidden size; the files grow with its square")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        large, tiny = checkpoints(root / "large", options.width), checkpoints(root / "tiny", 16)
        size = sum(Checkpoint(large[0]).bytes_of(name) for name in Checkpoint(large[0]))
        print(f"three checkpoints of {size / 2**20:.0f} MB, {len(Checkpoint(large[0]).shards())} shards each\n")
        agreement(options.mergekit, large, root)
        costs(options.mergekit, large, tiny, root)


def checkpoints(root: Path, width: int) -> list[Path]:
    """A base and two models that differ from it by small random deltas."""
    config = LlamaConfig(
        vocab_size=8000 if width > 16 else 64, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=6,
        num_attention_heads=4, num_key_value_heads=4, tie_word_embeddings=False, torch_dtype="float32",
    )  # fmt: skip
    torch.manual_seed(0)
    base = LlamaForCausalLM(config)
    folders = [root / name for name in ("base", "one", "two")]
    base.save_pretrained(folders[0], max_shard_size="32MB")
    start = {name: value.clone() for name, value in base.state_dict().items()}
    for k, folder in enumerate(folders[1:]):
        generator = torch.Generator().manual_seed(k + 1)
        with torch.no_grad():
            for name, value in base.state_dict().items():
                value.copy_(start[name] + DELTA * torch.randn(value.shape, generator=generator))
        base.save_pretrained(folder, max_shard_size="32MB")
    return folders


# -- running both ------------------------------------------------------------------------------------------------------


def ours(folders: list[Path], out: Path, merge: str, rate: float, seed: int = 0) -> Run:
    settings = {"rate": rate, "merge": merge, "trim": 0.0, "scaling": 1.0, "exclude": []}
    job = {"settings": settings, "base": str(folders[0]), "models": [str(f) for f in folders[1:]], "out": str(out),
           "seed": seed}  # fmt: skip
    return run([sys.executable, "-c", OURS, json.dumps(job)])


def theirs(command: str, folders: list[Path], out: Path, merge: str, rate: float, seed: int = 0) -> Run:
    method = {"task-arithmetic": "dare_linear", "ties": "dare_ties"}[merge]
    models = [{"model": str(f), "parameters": {"weight": 1.0, "density": 1 - rate}} for f in folders[1:]]
    config = {"merge_method": method, "base_model": str(folders[0]), "models": models, "dtype": "float32",
              "parameters": {"normalize": merge == "ties", "rescale": True, "lambda": 1.0}}  # fmt: skip
    file = out.with_suffix(".yaml")
    file.write_text(json.dumps(config))  # JSON is YAML
    flags = ["--no-copy-tokenizer", "--out-shard-size", "32M", "--random-seed", str(seed + 1), "--quiet"]
    return run([command, str(file), str(out), *flags])


def run(command: list[str]) -> Run:
    """A process's wall seconds, processor seconds and peak MB (read from /proc as it runs: Linux only)."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    start, used, peak = time.perf_counter(), processor_seconds(), 0
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        while process.poll() is None:
            peak = max(peak, high_water(process.pid))
            time.sleep(0.005)
        seconds = time.perf_counter() - start
        if process.returncode:
            raise SystemExit(
                f"{command[0]} failed:\n{process.stderr.read().decode()[-2000:] if process.stderr else ''}"
            )
    return seconds, processor_seconds() - used, peak / 2**20


def processor_seconds() -> float:
    """Of all processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def high_water(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:  # it has just ended
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)


# -- what is compared --------------------------------------------------------------------------------------------------


def agreement(command: str, folders: list[Path], root: Path) -> None:
    print("merge            rate   largest difference   differing   kept: ours  mergekit   mean|delta|: ours  mergekit"
          "   true")  # fmt: skip
    for merge in ("task-arithmetic", "ties"):
        for rate in (0.0, 0.5, 0.9):
            mine, other = root / "mine", root / "other"
            ours(folders, mine, merge, rate)
            theirs(command, folders, other, merge, rate)
            show(merge, rate, folders, mine, other)
    scales(command, folders, root)


def show(merge: str, rate: float, folders: list[Path], mine: Path, other: Path) -> None:
    base, one, two, a, b = (Checkpoint(f) for f in (*folders, mine, other))
    gap = max(float((a[n] - b[n]).abs().max()) for n in base)
    size = sum(base[n].numel() for n in base)
    apart = sum(int(((a[n] - b[n]).abs() > 1e-6).sum()) for n in base) / size
    kept = [share(base, made) for made in (a, b)]
    dense = total(base, one, two) if merge == "task-arithmetic" else float("nan")
    sums = [signed(base, made, (one, two)) for made in (a, b)]
    print(f"{merge:<16} {rate:4}   {gap:18.2e}   {apart:9.1e}   {kept[0]:10.4f}  {kept[1]:8.4f}   "
          f"{sums[0]:17.4e}  {sums[1]:8.4e}  {dense:8.4e}")  # fmt: skip


def share(base: Checkpoint, made: Checkpoint) -> float:
    """Share of numbers that differ from the base."""
    changed = sum(int(torch.count_nonzero(made[n] - base[n])) for n in base)
    return changed / sum(base[n].numel() for n in base)


def signed(base: Checkpoint, made: Checkpoint, models: Any) -> float:
    """Mean of the merged delta along the sign of the summed dense delta: unbiased dropping keeps it."""
    size = sum(base[n].numel() for n in base)
    along = (((made[n] - base[n]) * sum(m[n] - base[n] for m in models).sign()).sum() for n in base)
    return float(sum(along)) / size


def total(base: Checkpoint, one: Checkpoint, two: Checkpoint) -> float:
    size = sum(base[n].numel() for n in base)
    return float(sum((one[n] + two[n] - 2 * base[n]).abs().sum() for n in base)) / size


def scales(command: str, folders: list[Path], root: Path) -> None:
    """The factor on what is kept, tensor by tensor, of one model: 1 / (1 - rate) here, a ratio of L1 norms there."""
    rate, single = 0.9, folders[:2]
    ours(single, root / "mine", "task-arithmetic", rate)
    theirs(command, single, root / "other", "task-arithmetic", rate)
    base, one = Checkpoint(folders[0]), Checkpoint(folders[1])
    print("\nfactor on what is kept at rate 0.9 (expected 10), over all tensors")
    for name, made in (("didact", Checkpoint(root / "mine")), ("mergekit", Checkpoint(root / "other"))):
        factors = []
        for n in base:
            delta, thin = one[n] - base[n], made[n] - base[n]
            firm = (thin != 0) & (delta.abs() > DELTA)  # where rounding of the weights does not show
            if bool(firm.any()):
                factors.append(float((thin[firm] / delta[firm]).median()))
        print(f"  {name:<9} {min(factors):8.4f} to {max(factors):8.4f}, median {statistics.median(factors):8.4f}")


def costs(command: str, large: list[Path], tiny: list[Path], root: Path) -> None:
    """Wall time, processor time and peak memory of both; the last columns without what a tiny checkpoint takes."""
    print("\nrate 0.5         wall s: ours  mergekit  ratio   CPU s: ours  mergekit  ratio   peak MB: ours  mergekit  "
          "ratio   beyond start: CPU  MB")  # fmt: skip
    for merge in ("task-arithmetic", "ties"):
        runs = {
            who: best([call(files, root / f"{who}-{merge}", merge, 0.5, k) for k in range(SEEDS)])
            for who, call, files in (
                ("ours", ours, large),
                ("theirs", partial(theirs, command), large),
                ("our-start", ours, tiny),
                ("their-start", partial(theirs, command), tiny),
            )
        }
        mine, other = runs["ours"], runs["theirs"]
        columns = [f"{a:12.2f}  {b:8.2f}  {a / b:5.2f}" for a, b in zip(mine, other, strict=True)]
        beyond = [(mine[i] - runs["our-start"][i]) / (other[i] - runs["their-start"][i]) for i in (1, 2)]
        print(f"{merge:<16} " + "  ".join(columns) + f"  {beyond[0]:17.2f}  {beyond[1]:.2f}")


def best(runs: list[Run]) -> Run:
    """The least of each column over several runs: what the machine's other work adds is not the program's."""
    wall, cpu, peak = zip(*runs, strict=True)
    return min(wall), min(cpu), statistics.median(peak)


if __name__ == "__main__":
    main()
