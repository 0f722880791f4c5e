"""Trains one bundled model: `python -m recipes.train extract|summary|category --out DIR [--minutes M]`.

Seeded and resumable: batches depend on their number alone, and a checkpoint is kept beside the result.
"""

import argparse
import json
import math
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from recipes.gguf_file import write_gguf
from recipes.jobs import IGNORED, JOBS, Job, draw_batches, learn_job_vocabulary
from recipes.model import Llama, Shape

SEED = 20261123
WARMUP_SHARE, SIMPLE_SHARE, CHECKPOINT_SECONDS = 0.03, 0.1, 60


def main() -> None:
    """Parses the command line and trains."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("job", choices=[*JOBS, "category"])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--minutes", type=float, help="choose the steps so that training takes about this long here")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--heads", type=int, default=4)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.job == "category":
        from recipes.category import train_category

        train_category(args.out)
    else:
        train_language_model(JOBS[args.job], args)


def train_language_model(job: Job, args: argparse.Namespace) -> None:
    """Trains `job`'s model and writes `DIR/NAME.gguf` and `DIR/NAME.json` (what was run)."""
    torch.manual_seed(SEED)
    torch.set_num_threads(args.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    vocabulary = learn_job_vocabulary(job, SEED)
    tokenizer = vocabulary.build_tokenizer()
    model = Llama(Shape(vocabulary=len(vocabulary.tokens), width=args.width, layers=args.layers, heads=args.heads, hidden=args.width * 3)).to(device)
    optimizers = build_optimizers(model, args.rate)
    checkpoint = args.out / f"{job.name}.checkpoint.pt"
    step, seconds, steps, tokens = 0, 0.0, args.steps, 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        step, seconds, steps, tokens = state["step"], state["seconds"], state["steps"], state["tokens"]
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
    batches = draw_batches(job, tokenizer, seed=SEED, first=step, simple_until=int(steps * SIMPLE_SHARE), size=args.batch)
    saved_at = mark = time.monotonic()
    running = 0.0
    for tokens_BT, targets_BT in batches:
        if step >= steps:
            break
        if args.minutes and step == 24:
            steps = int(24 * args.minutes * 60 / seconds)
            print(f"{steps} steps for {args.minutes} minutes", flush=True)
        share = rate_share(step / steps)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * share
        loss = answer_loss(model, tokens_BT.to(device), targets_BT.to(device))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        step, tokens = step + 1, tokens + tokens_BT.numel()
        running += loss.detach()
        now = time.monotonic()
        seconds, mark = seconds + now - mark, now
        if step % 100 == 0:
            print(f"step {step}/{steps} loss {running / 100:.4f} tokens {tokens} seconds {seconds:.0f}", flush=True)
            running = 0.0
        if now - saved_at > CHECKPOINT_SECONDS:
            saved_at = now
            torch.save({"step": step, "seconds": seconds, "steps": steps, "tokens": tokens, "model": model.state_dict(),
                        "optimizers": [o.state_dict() for o in optimizers]}, checkpoint)  # fmt: skip
    write_gguf(args.out / f"{job.name}.gguf", model, vocabulary, name=job.name, description=job.describes)
    parameters = sum(p.numel() for p in model.parameters())
    facts = {"job": job.name, "seed": SEED, "steps": steps, "batch": args.batch, "tokens": tokens, "parameters": parameters,
             "width": args.width, "layers": args.layers, "heads": args.heads, "rate": args.rate, "threads": args.threads,
             "seconds": round(seconds, 1), "torch": torch.__version__}  # fmt: skip
    (args.out / f"{job.name}.json").write_text(json.dumps(facts, indent=1) + "\n")


def build_optimizers(model: Llama, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, AdamW for embeddings and norms."""
    matrices = [p for p in model.blk.parameters() if p.dim() == 2]
    others = [p for p in model.parameters() if p.dim() != 2] + [model.token_embd.weight]
    optimizers = [
        torch.optim.Muon(matrices, lr=rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["initial_lr"] = rate
    return optimizers


def rate_share(progress: float) -> float:
    """The learning rate's share of its peak at `progress` (0..1): linear warm-up, cosine to 3 %."""
    if progress < WARMUP_SHARE:
        return (progress + 1e-4) / WARMUP_SHARE
    return 0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * (progress - WARMUP_SHARE) / (1 - WARMUP_SHARE)))


def answer_loss(model: Llama, tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:
    """Mean cross-entropy over the answers' tokens, in nats."""
    wanted_BT = targets_BT != IGNORED
    return F.cross_entropy(model.logits(model(tokens_BT)[wanted_BT]), targets_BT[wanted_BT])


if __name__ == "__main__":
    main()
