"""TRL on CPU torch: `DPOTrainer.train()` itself. A callback waits between two steps. The reference is the base with disabled
adapters, TRL's way for a new PEFT adapter. It takes one rejected answer a pair."""

import sys
import tempfile
import time
from importlib.metadata import version

from protocol import Session, Stop, give_back_memory, peak_resident, reset_peak

session = Session()

import numpy as np  # noqa: E402
import torch  # noqa: E402
from datasets import Dataset  # noqa: E402
from peft import LoraConfig  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback  # noqa: E402
from trl import DPOConfig, DPOTrainer  # noqa: E402

config = session.config
torch.set_num_threads(config["threads"])
prompt, answers = session.prompt_and_answers()
rows = [{"prompt_ids": prompt, "chosen_ids": answers[0], "rejected_ids": rejected} for rejected in answers[1:]]
batch = len(rows) if config["batched"] else 1


class Trainer(DPOTrainer):
    """Takes ready token ids, so that all sides train on the same ones."""

    def _prepare_dataset(self, dataset, *args, **kwargs):
        return dataset


def names(model) -> dict:
    """mlx-lm's name of each adapter matrix -> the parameter with its transpose."""
    found = {}
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            name = name.removeprefix("base_model.model.").removesuffix(".default.weight")
            found[name.replace("lora_A", "lora_a").replace("lora_B", "lora_b")] = parameter
    return found


class Timed(TrainerCallback):
    """The first step is the check from perturbed adapters. Each later step waits for the benchmark."""

    checked = False

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        if self.checked:
            session.wait(trim=give_back_memory)
        self.begin = time.perf_counter()

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        if not self.checked:
            np.savez(config["gradients"], **{k: p.grad.T.numpy() for k, p in names(model).items()})

    def on_step_end(self, args, state, control, model=None, optimizer=None, **kwargs):
        seconds = time.perf_counter() - self.begin
        loss = float(trainer.losses.pop())
        if self.checked:
            session.send(event="step", seconds=seconds, loss=loss, resident=peak_resident(), mlx=None)
            return
        session.send(event="checked", seconds=seconds, loss=loss, version=f"{version('trl')}, torch {torch.__version__}")
        self.checked = True
        with torch.no_grad():
            for name, parameter in names(model).items():
                parameter.copy_(weights[name].T)
                if name.endswith("lora_b"):
                    parameter.zero_()
                for moment in ("exp_avg", "exp_avg_sq"):
                    optimizer.state[parameter][moment].zero_()
        reset_peak()


class Recorded(Trainer):
    losses: list = []

    def training_step(self, *args, **kwargs):
        loss = super().training_step(*args, **kwargs)
        self.losses.append(loss)
        return loss


model = AutoModelForCausalLM.from_pretrained(config["model"], dtype=torch.float32)
arguments = DPOConfig(
    output_dir=tempfile.mkdtemp(),
    per_device_train_batch_size=batch,
    max_steps=sys.maxsize >> 1,
    learning_rate=1e-6,
    lr_scheduler_type="constant",
    max_grad_norm=0.0,  # the gradients are compared as they are
    train_sampling_strategy="sequential",
    gradient_checkpointing=config["checkpointing"],
    precompute_ref_log_probs=config["precomputed"],
    max_length=None,  # the default, 1024, would cut the longest rows
    bf16=False,
    use_cpu=True,
    beta=0.1,
    report_to=[],
    save_strategy="no",
    logging_strategy="no",
    disable_tqdm=True,
)
trainer = Recorded(
    model,
    args=arguments,
    train_dataset=Dataset.from_list(rows),
    processing_class=AutoTokenizer.from_pretrained(config["model"]),
    peft_config=LoraConfig(r=8, lora_alpha=160, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"),
    callbacks=[Timed()],
)
weights = load_file(config["adapters"])
with torch.no_grad():
    own = names(trainer.model)
    if own.keys() != weights.keys():
        raise SystemExit(f"other adapter matrices: {sorted(own.keys() ^ weights.keys())[:4]}")
    for name, parameter in own.items():
        parameter.copy_(weights[name].T)
try:
    trainer.train()
except Stop:
    pass
