"""Trains one bundled model: `python -m recipes.train extract|summary|category --out DIR [--minutes M]`.

Seeded and resumable: a batch depends on its number alone, and a checkpoint is kept beside the result. The same
`--steps` on the same machine gives the same weights; `--minutes` only chooses the steps. Resuming with another
`--steps` closes the schedule sooner or later; the plan that was followed is written down with the result.
"""

import argparse
import json
import math
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from recipes.category import train_category
from recipes.gguf_file import write_gguf
from recipes.jobs import IGNORED, JOBS, Job, draw_batches, learn_job_vocabulary
from recipes.model import Llama, Shape

SEED = 20261123
STEPS, PLAIN_STEPS = 3600, 280
WARMUP_SHARE, FINAL_RATE_SHARE = 0.03, 0.03
PROMPT_WEIGHT = 0.1
CHECKPOINT_SECONDS = 60
CALIBRATION_STEPS = 24
LOG_STEPS = 100


def main() -> None:
    """Parses the command line and trains."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("job", choices=[*JOBS, "category"])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, help=f"{STEPS} unless told")
    parser.add_argument("--minutes", type=float, help="choose the steps so that training takes about this long here")
    parser.add_argument("--batch", type=int, default=16, help="tickets in a batch")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rate", type=float, default=4e-3, help="peak learning rate")
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--heads", type=int, default=4)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.job == "category":
        train_category(args.out)
    else:
        train_language_model(JOBS[args.job], args)


def train_language_model(job: Job, args: argparse.Namespace) -> None:
    """Trains `job`'s model and writes `NAME.gguf` and `NAME.json` (what was run) into `args.out`."""
    torch.manual_seed(SEED)
    torch.set_num_threads(args.threads)
    vocabulary = learn_job_vocabulary(job, SEED)
    shape = Shape(
        vocabulary=len(vocabulary.tokens), width=args.width, layers=args.layers, heads=args.heads, hidden=3 * args.width
    )
    run = Run(Llama(shape), args.rate, args.steps or STEPS)
    checkpoint = args.out / f"{job.name}.checkpoint.pt"
    if checkpoint.exists():
        run.load_state(torch.load(checkpoint, weights_only=True))
        run.close_at(args.steps or run.steps)
    batches = draw_batches(
        job, vocabulary.build_tokenizer(), seed=SEED, first=run.step, plain_until=PLAIN_STEPS, size=args.batch
    )
    saved_at = run.seconds
    while run.step < run.steps:
        run.take_step(*next(batches))
        if args.minutes and run.step == CALIBRATION_STEPS:
            run.close_at(int(CALIBRATION_STEPS * args.minutes * 60 / run.seconds))
        if run.step % LOG_STEPS == 0:
            print(
                f"step {run.step}/{run.steps} loss {run.loss:.4f} tokens {run.tokens} {run.seconds:.0f} s", flush=True
            )
        if run.seconds - saved_at > CHECKPOINT_SECONDS:
            saved_at = run.seconds
            torch.save(run.state(), checkpoint.with_suffix(".new"))
            checkpoint.with_suffix(".new").replace(checkpoint)
    write_gguf(args.out / f"{job.name}.gguf", run.model, vocabulary, name=job.name, description=job.describes)
    parameters = sum(weight.numel() for weight in run.model.parameters())
    facts = {
        "seed": SEED, "steps": run.steps, "plan": run.plan, "plain_steps": PLAIN_STEPS, "batch": args.batch,
        "rate": args.rate,
        "threads": args.threads, "tokens": run.tokens, "parameters": parameters, "shape": asdict(shape),
        "seconds": round(run.seconds, 1), "final_loss": round(run.loss, 4), "torch": torch.__version__,
    }  # fmt: skip
    (args.out / f"{job.name}.json").write_text(json.dumps(facts, indent=1) + "\n")


class Run:
    """A model in training with its optimizers and its place in the schedule; `loss` is a running mean in nats."""

    def __init__(self, model: Llama, rate: float, steps: int) -> None:
        self.model, self.rate, self.steps = model, rate, steps
        self.step, self.tokens, self.seconds, self.loss = 0, 0, 0.0, 0.0
        self.plan = [[0, steps]]
        matrices = [weight for weight in model.blk.parameters() if weight.dim() == 2]
        others = [weight for weight in model.blk.parameters() if weight.dim() != 2]
        others += [model.token_embd.weight, model.output_norm.weight]
        # Why Muon: with the same tokens, AdamW alone was a third as often right on names that it had not seen.
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.Muon(matrices, lr=rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=0.0),
        ]

    def take_step(self, tokens_BT: Tensor, targets_BT: Tensor, is_answer_BT: Tensor) -> None:
        """One optimizer step on one batch."""
        started = time.monotonic()
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.rate * rate_share(self.step / self.steps)
        answer, prompt = losses(self.model, tokens_BT, targets_BT, is_answer_BT)
        (answer + PROMPT_WEIGHT * prompt).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        keep = min(self.step / (self.step + 1), 0.98)
        self.loss = keep * self.loss + (1 - keep) * answer.item()
        self.step += 1
        self.tokens += tokens_BT.numel()
        self.seconds += time.monotonic() - started

    def close_at(self, steps: int) -> None:
        """From now on the schedule ends at step `steps`; `plan` keeps (from step, end) of each schedule."""
        if steps != self.steps:
            self.steps = steps
            self.plan.append([self.step, steps])

    def state(self) -> dict[str, Any]:
        """Everything that `load_state` needs to go on as if nothing had happened."""
        counters = {name: getattr(self, name) for name in ("step", "steps", "plan", "tokens", "seconds", "loss")}
        return counters | {"model": self.model.state_dict(), "optimizers": [o.state_dict() for o in self.optimizers]}

    def load_state(self, state: dict[str, Any]) -> None:
        """Takes up where `state` was saved."""
        self.model.load_state_dict(state.pop("model"))
        for optimizer, saved in zip(self.optimizers, state.pop("optimizers"), strict=True):
            optimizer.load_state_dict(saved)
        vars(self).update(state)


def rate_share(progress: float) -> float:
    """The learning rate's share of its peak at `progress` (0..1): linear warm-up, then a cosine."""
    if progress < WARMUP_SHARE:
        return (progress + 1e-4) / WARMUP_SHARE
    turn = math.pi * (progress - WARMUP_SHARE) / (1 - WARMUP_SHARE)
    return FINAL_RATE_SHARE + (1 - FINAL_RATE_SHARE) * 0.5 * (1 + math.cos(turn))


def losses(model: Llama, tokens_BT: Tensor, targets_BT: Tensor, is_answer_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy of answer tokens and of prompt tokens, in nats."""
    stream_BTC = model(tokens_BT)
    is_prompt_BT = (targets_BT != IGNORED) & ~is_answer_BT
    answer, prompt = (
        F.cross_entropy(model.logits(stream_BTC[chosen_BT]), targets_BT[chosen_BT])
        for chosen_BT in (is_answer_BT, is_prompt_BT)
    )
    return answer, prompt


if __name__ == "__main__":
    main()
