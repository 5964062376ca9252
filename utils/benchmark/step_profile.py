"""The time of a training step, by the phases that the trainer marks for the profiler."""

from collections.abc import Iterator, Sequence

from torch.autograd import DeviceType
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile, record_function

from utils.core.timing import synchronize
from utils.data.augmentation import Batch
from utils.engine.trainer import Trainer

SHARES = {
    "batch": "making the batch: cache, mosaic, affine, color",
    "forward": "forward",
    "loss": "loss and assignment, forward",
    "loss_backward": "loss, backward",
    "backward": "backward",
    "optimizer": "clipping and optimizer",
    "ema": "EMA of the weights",
    "rest": "the rest",
    "loss_whole": "loss and assignment, forward and backward",
}
MARKED = ("batch", "forward", "loss", "optimizer", "ema")
BACKWARD_NODE = "autograd::engine::evaluate_function"
STEP = "profiled_step"


def profile_step(trainer: Trainer, batches: Iterator[Batch]) -> dict[str, float]:
    """Make a batch, train on it, and return the percentage that each of `SHARES` took.

    On a CPU these are shares of wall-clock time, on a GPU of its kernels' time.
    """
    on_gpu = trainer.device.type == "cuda"
    activities = [ProfilerActivity.CPU]
    if on_gpu:
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as profiler:
        with record_function(STEP):
            trainer.step(next(batches))
        synchronize(trainer.device)
    return phase_shares(list(profiler.events() or []), on_gpu)


def phase_shares(events: Sequence[FunctionEvent], on_gpu: bool) -> dict[str, float]:
    """The percentages of `SHARES`, from the events of one step."""
    on_host = [event for event in events if event.device_type == DeviceType.CPU]
    first_node = _first_loss_node(on_host)
    times = dict.fromkeys(SHARES, 0.0)
    whole = 0.0
    for event in on_host:
        microseconds = event.device_time_total if on_gpu else event.cpu_time_total
        if event.name in MARKED:
            times[event.name] += microseconds
        elif event.name.startswith(BACKWARD_NODE):
            phase = "loss_backward" if event.sequence_nr >= first_node else "backward"
            times[phase] += microseconds
        elif event.name == STEP:
            whole = microseconds
    if on_gpu:
        kernels = [event for event in events if event.device_type == DeviceType.CUDA]
        whole = sum(event.device_time_total for event in kernels if not event.is_user_annotation)
    times["rest"] = whole - sum(times.values())
    times["loss_whole"] = times["loss"] + times["loss_backward"]
    return {name: 100 * time / whole for name, time in times.items()}


def _first_loss_node(events: Sequence[FunctionEvent]) -> int:
    """Autograd numbers the nodes of a step's graph in order; those of the loss come last."""
    loss = next(event for event in events if event.name == "loss")
    start, end = loss.time_range.start, loss.time_range.end
    inside = [
        event.sequence_nr
        for event in events
        if event.thread == loss.thread and start <= event.time_range.start <= end
    ]
    return min(number for number in inside if number >= 0)
