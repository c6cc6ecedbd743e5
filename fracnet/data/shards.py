"""The share of one process in an epoch that several processes show together."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch.distributed as dist
from torch.utils.data import Sampler

from fracnet.data.sampling import Draw, EpochSampler


class Shard(Sampler[Draw]):
    """Deals the draws of a sampler out to `world` processes; this is the share of one.

    In training all shares are equally long, as their steps are taken together: the draws are
    dealt out one by one, the first ones once more where that does not come out even. Elsewhere
    whole batches are dealt out, and a batch holds the very rows that it holds in a single process,
    so that its logits are the same to the last bit. A share is never empty: it repeats the last
    batch if need be. Whoever gathers the shares has to drop the rows that come twice.
    """

    def __init__(
        self, whole: EpochSampler, *, rank: int, world: int, batch_size: int, training: bool
    ) -> None:
        assert 0 <= rank < world, (rank, world)
        self.whole = whole
        self.rank = rank
        self.world = world
        self.batch_size = batch_size
        self.training = training

    def set_epoch(self, epoch: int) -> None:
        """Called by the training loop before each epoch."""
        self.whole.set_epoch(epoch)

    def places(self) -> npt.NDArray[np.int64]:
        """Places in the whole epoch, int64 [len(self)]."""
        n = len(self.whole)
        if self.training:
            padded = -(-n // self.world) * self.world
            return np.arange(self.rank, padded, self.world) % n
        batches = [np.arange(n)[i : i + self.batch_size] for i in range(0, n, self.batch_size)]
        return np.concatenate(batches[self.rank :: self.world] or batches[-1:])

    def __iter__(self) -> Iterator[Draw]:
        draws = list(self.whole)
        return iter([draws[place] for place in self.places()])

    def __len__(self) -> int:
        return len(self.places())


def of_this_process(
    sampler: EpochSampler, batch_size: int, *, training: bool
) -> EpochSampler | Shard:
    """The sampler itself in a single process, else this process's share of it."""
    if not (dist.is_available() and dist.is_initialized()):
        return sampler
    return Shard(
        sampler,
        rank=dist.get_rank(),
        world=dist.get_world_size(),
        batch_size=batch_size,
        training=training,
    )
