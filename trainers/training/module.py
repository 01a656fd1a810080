"""A training as Lightning runs it: one long epoch of Lightning's over all batches that are left.

Lightning places, scales, accumulates, clips and steps. Where the training is, only `batches_done` says:
Lightning's own counters start anew with each process, so that a training that goes on is one that begins
somewhere else, and not one whose loops are put together again."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils import _pytree as pytree

from trainers.checkpoint import CheckpointError, save_checkpoint
from trainers.convert import set_progress
from trainers.inputs import call, samples_of
from trainers.operator import BinaryLayer
from trainers.tasks import Task
from trainers.training.evaluate import judge
from trainers.training.loader import Order, seed_of, training_batches
from trainers.training.log import Log
from trainers.training.nan import bad_gradient, blame, finite
from trainers.training.optimizer import make_optimizer, rate_share
from trainers.training.recipe import Recipe
from trainers.training.state import STATE, State

BEST = "best.pt"
LOG_EVERY = 10  # steps between two lines of the log


def loss_of(model: nn.Module, task: Task) -> Callable[[Any, Any], Tensor]:
    """The network's own `loss` where it has one, else the task's."""
    own = getattr(model, "loss", None)
    return own if callable(own) else task.loss


class Training(LightningModule):
    """One process's part of a training.

    Args:
        model: what is trained; teacher: the float network whose outputs are distilled, if the recipe asks.
        order: this process's batches; validation: split and samples, none for no validation.
        metadata: the keyword arguments of `save_checkpoint`.
        arguments: what a training that goes on from this one's states must have.
    """

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        recipe: Recipe,
        *,
        epochs: int,
        order: Order,
        validation: tuple[str, list[int]],
        teacher: nn.Module | None,
        seed: int,
        workers: int,
        save_every: float,
        out: Path,
        metadata: dict[str, Any],
        arguments: dict[str, Any],
    ) -> None:
        super().__init__()
        self.model, self.task, self.recipe = model, task, recipe
        self.epochs, self.order, self.validation = epochs, order, validation
        self.teacher = teacher.requires_grad_(False) if teacher is not None else None
        self.average: AveragedModel | None = None
        if recipe.ema:
            average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema), use_buffers=True)
            self.average = average.requires_grad_(False)
        self.seed, self.workers, self.save_every, self.out = seed, workers, save_every, out
        self.metadata, self.arguments = metadata, arguments
        self.batches_done = self.stage = self.since_best = 0
        self.best: float | None = None
        self.seconds = 0.0
        self.log_bytes = 0
        self.loss = torch.zeros(())
        self.stop_asked = False
        self.restored: State | None = None

    def restore(self, state: State) -> None:
        """Go on from there. Raises CheckpointError for a state that is of no network like this."""
        with self._of_another_network():
            self.model.load_state_dict(state.model)
            if self.average is not None:
                self.average.load_state_dict(state.average)
        self.batches_done, self.stage = state.batches, state.stage
        self.best, self.since_best = state.best, state.since_best
        self.seconds, self.log_bytes = state.seconds, state.log_bytes
        self.order.first = state.batches
        self.restored = state

    @contextmanager
    def _of_another_network(self) -> Iterator[None]:
        """What PyTorch raises for a dictionary that does not fit is of many kinds."""
        try:
            yield
        except Exception as error:
            raise CheckpointError(
                f"{self.out / STATE} is not the state of this network; remove it to start anew."
            ) from error

    @property
    def result(self) -> nn.Module:
        """The network that is judged and kept."""
        return self.model if self.average is None else self.average.module

    @property
    def done(self) -> bool:
        """Whether all batches are done, or validation has not become better for too long."""
        patience = self.recipe.patience
        return self.batches_done >= self.batches or bool(patience and self.since_best >= patience)

    @property
    def batches(self) -> int:
        """Of each process, in all epochs."""
        return self.order.per_epoch * self.epochs

    def train(self, mode: bool = True) -> "Training":
        super().train(mode)
        for module in (self.teacher, self.average):
            if module is not None:
                module.eval()
        return self

    def train_dataloader(self) -> Any:
        return training_batches(self.task, self.order, self.workers)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        optimizer = make_optimizer(self.model, self.recipe, self.stage)
        if self.restored is not None:
            decays = [group["weight_decay"] for group in optimizer.param_groups]
            with self._of_another_network():
                optimizer.load_state_dict(self.restored.optimizer)
            for group, decay in zip(optimizer.param_groups, decays, strict=True):
                group["weight_decay"] = decay
        return optimizer

    def on_fit_start(self) -> None:
        if self.restored is not None and self.restored.scaler:
            self.trainer.precision_plugin.load_state_dict(self.restored.scaler)
        self.started = self.saved = time.monotonic()
        self.log_file = Log(self.out, self.log_bytes) if self.trainer.is_global_zero else None

    def training_step(self, batch: tuple[Any, Any], index: int) -> Tensor | None:
        inputs, targets = batch
        if samples_of(inputs) < 2:  # of broken files; the others of the step count
            return None
        if self.batches_done % self.recipe.accumulate == 0:
            self._prepare_step()
        # What is random in a step follows from where it is, so that nothing random has to be kept.
        torch.manual_seed(seed_of(self.seed, self.batches_done, self.global_rank))
        outputs = call(self.model, inputs)
        loss = loss_of(self.model, self.task)(outputs, targets)
        if share := self.recipe.distillation:
            loss = (1 - share) * loss + share * self._distance(outputs, inputs)
        if not torch.isfinite(loss):
            raise ValueError(
                f"The loss is {loss.item()} in {self._where()}: {blame(self.model, inputs)}. "
                "The training stopped."
            )
        self.loss = loss.detach()
        return loss

    def _prepare_step(self) -> None:
        """Move the schedules of the recipe and of the algorithm, and change the stage when it is time."""
        half = self.order.per_epoch * (self.epochs // 2) if self.recipe.stages == 2 else 0
        stage = int(self.recipe.stages == 2 and self.batches_done >= half)
        if stage > self.stage:
            optimizer = self.trainer.optimizers[0]
            optimizer.state.clear()
            for group in optimizer.param_groups:
                group["weight_decay"] = 0.0
            self.stage = stage
        for module in self.model.modules():
            if isinstance(module, BinaryLayer):
                module.float_weights = self.recipe.stages == 2 and self.stage == 0
        first, end = (half, self.batches) if self.stage else (0, half or self.batches)
        every = self.recipe.accumulate
        share = rate_share(
            self.recipe, (self.batches_done - first) // every, max(1, -(-(end - first) // every))
        )
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = self.recipe.lr * share
        set_progress(self.model, self.batches_done / max(1, self.batches - 1), self.epochs)

    def _distance(self, outputs: Any, inputs: Any) -> Tensor:
        """Of the outputs from the teacher's: Kullback-Leibler over classes (dimension 1) times the squared
        temperature (Hinton et al., 2015, arXiv:1503.02531), squares where there is one number."""
        assert self.teacher is not None
        with torch.no_grad():
            wanted = call(self.teacher, inputs)
        distances = [
            _divergence(found, aim, self.recipe.temperature)
            for found, aim in zip(pytree.tree_leaves(outputs), pytree.tree_leaves(wanted), strict=True)
        ]
        return torch.stack(distances).sum()

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        if self.trainer.precision == "16-mixed":
            return  # its scaler leaves such steps out, and takes a smaller scale for the next
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        if not torch.isfinite(nn.utils.get_total_norm(gradients)):
            raise ValueError(
                f"The gradient of {bad_gradient(self.model)} has values that are not numbers in "
                f"{self._where()}. The training stopped."
            )

    def _where(self) -> str:
        per_epoch = self.order.per_epoch
        return f"epoch {self.batches_done // per_epoch + 1}, step {self.batches_done % per_epoch + 1}"

    def on_train_batch_end(self, outputs: Any, batch: Any, index: int) -> None:
        self.batches_done += 1
        done, per_epoch = self.batches_done, self.order.per_epoch
        last = done == self.batches
        whole = done % self.recipe.accumulate == 0 or last
        if not whole:
            return
        if self.average is not None:
            self.average.update_parameters(self.model)
        step = -(-done // self.recipe.accumulate)
        if self.log_file is not None and (step % LOG_EVERY == 0 or last):
            rate = self.trainer.optimizers[0].param_groups[0]["lr"]
            self.log_file.write(epoch=(done - 1) // per_epoch + 1, step=step, loss=float(self.loss), lr=rate)
        epoch_done = done // per_epoch > (done - self.recipe.accumulate) // per_epoch or last
        if epoch_done and self.validation[1] and self.stage == self.recipe.stages - 1:
            self._validate(done // per_epoch)
        stopping = self.trainer.strategy.broadcast(self.stop_asked) or self.done
        if stopping or epoch_done or time.monotonic() - self.saved > self.save_every:
            self.save()
        if stopping:
            self.trainer.should_stop = True

    def _validate(self, epoch: int) -> None:
        """Keep the best weights, and end the training where there is no better for too long."""
        split, samples = self.validation
        found = judge(self.result, self.task, split, samples)
        if self.log_file is not None:
            self.log_file.write(epoch=epoch, validation=found)
        value = found[self.task.metric]
        if self.best is None or value > self.best:
            self.best, self.since_best = value, 0
            if self.trainer.is_global_zero:
                extra = self.metadata.get("extra", {}) | {"epoch": epoch, "validation": found}
                save_checkpoint(self.out / BEST, self.result, **{**self.metadata, "extra": extra})
        else:
            self.since_best += 1

    def save(self) -> None:
        """Write the state, if all of it are numbers; that they are not shows in the next loss."""
        now = time.monotonic()
        self.saved = now
        if not self.trainer.is_global_zero or not finite(self.model.state_dict()):
            return
        assert self.log_file is not None
        State(
            arguments=self.arguments,
            epochs=self.epochs,
            batches=self.batches_done,
            seconds=self.seconds + now - self.started,
            stage=self.stage,
            log_bytes=self.log_file.flush(),
            best=self.best,
            since_best=self.since_best,
            model=self.model.state_dict(),
            average={} if self.average is None else self.average.state_dict(),
            optimizer=self.trainer.optimizers[0].state_dict(),
            scaler=self.trainer.precision_plugin.state_dict(),
        ).save(self.out)

    def on_fit_end(self) -> None:
        self.seconds += time.monotonic() - self.started
        if self.log_file is not None:
            self.log_file.close()


def _divergence(found: Tensor, aim: Tensor, temperature: float) -> Tensor:
    if found.dim() < 2 or found.shape[1] == 1:
        return F.mse_loss(found, aim)
    logs, wanted = (F.log_softmax(x.float() / temperature, 1) for x in (found, aim))
    return F.kl_div(logs, wanted, reduction="batchmean", log_target=True) * temperature**2
