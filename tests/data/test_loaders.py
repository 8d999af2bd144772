import multiprocessing
import os
import pickle
import signal
import sys
import time
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data._utils import signal_handling

from vertebra.data import (
    CocoFormat,
    Dataset,
    EvalLoader,
    Mapper,
    Metadata,
    TrainingSampler,
    TrainLoader,
    build_eval_loader,
    build_train_loader,
    worker_batches,
)
from vertebra.data import worker as worker_module
from vertebra.data.packed import PackedDicts
from vertebra.data.samplers import SampleKey
from vertebra.data.transforms import RandomCrop, RandomFlip
from vertebra.data.worker import SampleReader
from vertebra.errors import DataError, RecipeError, SetupError
from vertebra.structures import BoxMode


@pytest.fixture
def dataset(coco_folder):
    """Eleven images, high ones and wide ones, each with a box; the fourth shows only a crowd."""
    images = {f"{i}.png": (12, 16) if i % 3 else (16, 12) for i in range(11)}
    boxes = [{"image_id": i + 1, "category_id": 1, "bbox": [1, 1, 8, 8], "iscrowd": int(i == 3)} for i in range(11)]
    return CocoFormat(*coco_folder(images, boxes)).load()


def loader_of(dataset, workers=0, batch_size=2, **settings):
    mapper = Mapper([RandomFlip(), RandomCrop("absolute", [9, 9])], training=True, seed=3)
    return TrainLoader(dataset, mapper, batch_size, seed=3, workers=workers, **settings)


def take(loader, count, start=0):
    return list(islice(loader.batches(start), count))


def same(first, second):
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert [s["file_name"] for s in one] == [s["file_name"] for s in other]
        assert all(torch.equal(s["image"], o["image"]) for s, o in zip(one, other, strict=True))
    return True


def spoil(dataset, *names):
    paths = [item["file_name"] for item in dataset if os.path.basename(item["file_name"]) in names]
    for path in paths:
        open(path, "wb").close()
    return paths


def test_workers_change_nothing(dataset):
    # real processes here and wherever `workers` is not 0; forked ones start at once
    assert same(take(loader_of(dataset), 9), take(loader_of(dataset, workers=2), 9))


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("training", [True, False])
def test_unusual_images_are_logged_once_for_each_kind(dataset, caplog, workers, training):
    for item in dataset:
        pixels = np.asarray(Image.open(item["file_name"]).convert("RGBA")).copy()
        pixels[..., 3] = 7
        Image.fromarray(pixels).save(item["file_name"])
    if training:
        take(loader_of(dataset, workers=workers), 4)
    else:
        list(EvalLoader(dataset, Mapper([], training=False), workers=workers))
    [message] = [record.getMessage() for record in caplog.records if "alpha" in record.getMessage()]
    assert ".png has transparent pixels: its alpha channel is dropped" in message


@pytest.mark.slow
def test_spawned_workers_change_nothing(dataset):
    assert same(take(loader_of(dataset), 9), take(loader_of(dataset, workers=2, start_method="spawn"), 9))


@pytest.mark.parametrize("start", [1, 6, 23])
def test_batches_go_on_exactly_where_another_run_stopped(dataset, start):
    assert same(take(loader_of(dataset), 26)[start:], take(loader_of(dataset), 26 - start, start))


def test_batches_hold_images_of_one_orientation(dataset):
    for batch in take(loader_of(dataset), 12):
        assert len({sample["width"] > sample["height"] for sample in batch}) == 1


def test_processes_share_out_each_epoch(dataset):
    names = []
    for rank in range(2):
        loader = loader_of(dataset, rank=rank, world_size=2, batch_size=2, aspect_ratio_grouping=False)
        names.append([batch[0]["file_name"] for batch in take(loader, 11)])
    for epoch in range(2):  # positions 0, 2, 4, ... and 1, 3, 5, ... of one stream
        mixed = [name for pair in zip(*names, strict=True) for name in pair][11 * epoch : 11 * (epoch + 1)]
        assert len(set(mixed)) == 11
    with pytest.raises(ValueError, match="batch_size 3 is not divisible by 2"):
        loader_of(dataset, batch_size=3, world_size=2)


def test_steps_per_epoch_counts_the_whole_batch(dataset):
    assert loader_of(dataset, batch_size=4, world_size=2).steps_per_epoch == 11 / 4


@pytest.mark.parametrize("workers", [0, 2])
def test_the_first_bad_image_stops_the_run_with_its_path(dataset, workers):
    (path,) = spoil(dataset, "5.png")
    with pytest.raises(DataError, match=r"5\.png: the file is empty\n.*data\.max_bad_images allows 0") as caught:
        take(loader_of(dataset, workers=workers), 12)
    assert path in str(caught.value) and "Traceback" not in str(caught.value)


def test_bad_images_are_skipped_and_told_up_to_the_limit(dataset, caplog):
    paths = spoil(dataset, "5.png", "7.png")
    batches = take(loader_of(dataset, workers=2, max_bad_images=2), 30)
    assert all(len(batch) == 2 for batch in batches)
    assert not {s["file_name"] for batch in batches for s in batch} & set(paths)
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2 and all(any(path in text for text in told) for path in paths)
    with pytest.raises(DataError, match=r"2 image\(s\) could not be used"):
        take(loader_of(dataset, max_bad_images=1), 30)


def test_the_place_of_a_bad_image_is_filled_the_same_way_after_a_restart(dataset):
    spoil(dataset, "5.png", "6.png")
    whole = take(loader_of(dataset, max_bad_images=2), 26)
    assert same(whole[13:], take(loader_of(dataset, max_bad_images=2, workers=1), 13, start=13))


def test_a_set_of_bad_images_only_ends_in_an_error(dataset):
    spoil(dataset, *(f"{i}.png" for i in range(11)))
    with pytest.raises(DataError, match="the file is empty"):
        take(loader_of(dataset, max_bad_images=100), 12)


class Failing:
    """A transform with a bug that shows on wide images."""

    def __call__(self, sample, rng):
        return sample if sample.size[0] > sample.size[1] else 1 / 0


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bug_in_a_transform_is_raised_with_the_image(dataset, workers):
    loader = TrainLoader(dataset, Mapper([Failing()], training=True), 2, workers=workers, max_bad_images=9)
    with pytest.raises(
        RuntimeError, match=r"\.png: a transform or the mapper failed on this image: ZeroDivisionError: "
    ):
        take(loader, 12)


class Dying:
    """A transform that kills its process."""

    def __call__(self, sample, rng):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_dies_is_reported_with_the_image_it_was_at(dataset):
    loader = TrainLoader(
        dataset, Mapper([Dying()], training=True), 2, workers=1, sampler=TrainingSampler(shuffle=False)
    )
    with pytest.raises(SetupError, match=r"(?s)a data worker was killed, .*memory.*The workers were at: .*/1\.png"):
        take(loader, 1)


class Stuck:
    """A transform that never ends."""

    def __call__(self, sample, rng):
        time.sleep(600)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.timeout(60)
def test_silent_workers_are_reported_and_ended(dataset, training):
    mapper, others = Mapper([Stuck()], training=training), set(multiprocessing.active_children())
    if training:
        loader = TrainLoader(dataset, mapper, 2, workers=2, timeout=2.0).batches()
    else:
        loader = EvalLoader(dataset, mapper, workers=2, timeout=2.0)
    with pytest.raises(SetupError, match=r"(?s)no batch for 2 seconds.*data\.timeout.*The workers were at: .*\.png"):
        next(iter(loader))
    deadline = time.monotonic() + 15
    while set(multiprocessing.active_children()) - others and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not set(multiprocessing.active_children()) - others


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.timeout(60)
def test_full_shared_memory_is_one_message(dataset, monkeypatch, training):
    """As torch says it where a file system such as Docker's default of 64 MiB is full; a real one: tests/engine."""

    def full(sharer, tensor):
        raise RuntimeError("unable to write to file </torch_7_8_9>: No space left on device (28)")

    monkeypatch.setattr(worker_batches._TensorSharer, "persistent_id", full)
    mapper = Mapper([], training=training)
    if training:
        loader = TrainLoader(dataset, mapper, 2, workers=1, start_method="fork").batches()
    else:
        loader = EvalLoader(dataset, mapper, workers=1, start_method="fork")
    with pytest.raises(SetupError, match=r"(?s)shared memory is full.*MiB.*--shm-size.*data\.workers=0 needs none"):
        next(iter(loader))


def test_workers_run_one_thread(dataset):
    class Threads:
        def __call__(self, sample, rng):
            sample.image = torch.full((3, 1, 1), torch.get_num_threads(), dtype=torch.uint8)
            return sample

    loader = TrainLoader(dataset, Mapper([Threads()], training=True), 2, workers=1)
    assert take(loader, 1)[0][0]["image"].flatten().tolist() == [1, 1, 1]


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_sees_every_image_once_in_order(dataset, workers):
    loader = EvalLoader(dataset, Mapper([], training=False), batch_size=4, workers=workers)
    batches = list(loader)
    assert len(loader) == len(batches) == 3
    assert [s["image_id"] for batch in batches for s in batch] == list(range(1, 12))
    assert len(list(loader)) == 3  # and again


def test_evaluation_is_shared_out_in_blocks(dataset):
    shares = [EvalLoader(dataset, Mapper([], training=False), rank=rank, world_size=4) for rank in range(4)]
    assert [[b[0]["image_id"] for b in share] for share in shares] == [[1, 2, 3], [4, 5, 6], [7, 8, 9], [10, 11]]
    assert [len(share) for share in shares] == [3, 3, 3, 2]


@pytest.mark.parametrize("workers", [0, 1])
def test_evaluation_stops_at_a_bad_image_and_says_what_it_may_not_do(dataset, workers):
    loader = EvalLoader(dataset, Mapper([RandomFlip(1.0)], training=False), workers=workers)
    with pytest.raises(RecipeError, match=r"data\.eval_transforms"):
        next(iter(loader))
    spoil(dataset, "0.png")
    with pytest.raises(DataError, match=r"0\.png: the file is empty"):
        next(iter(EvalLoader(dataset, Mapper([], training=False), workers=workers)))


def test_packed_dicts_are_one_array_and_survive_the_way_to_a_spawned_process():
    dicts = [{"file_name": str(i), "annotations": [{"bbox": [i, 1.5, 2, 3]}] * (i % 3)} for i in range(50)]
    packed = PackedDicts(iter(dicts))
    assert list(packed) == dicts and packed[-1] == dicts[-1] and packed[3:5] == dicts[3:5]
    with pytest.raises(IndexError):
        packed[50]
    pickled = pickle.dumps(packed)
    assert len(pickled) < packed.nbytes  # the bytes stay in a file that both map
    copy = pickle.loads(pickled)
    folder = copy._file.parent
    assert list(copy) == dicts and isinstance(copy._bytes, np.memmap)
    del packed
    assert not folder.exists()
    assert list(pickle.loads(pickle.dumps(PackedDicts([])))) == []


def test_a_reader_for_spawned_workers_is_small():
    dicts = [{"file_name": "x" * 1000}] * 1000
    reader = SampleReader(PackedDicts(dicts), Mapper([], training=True))
    reader.current = None  # a tensor in shared memory travels only to a child process
    assert len(pickle.dumps(reader)) < 20_000


class Part:
    """A stand-in for a part of a recipe: builds what it was given."""

    def __init__(self, thing):
        self.thing = thing

    def build(self, **injected):
        return self.thing


def recipe_for(**data):
    settings = dict(
        train=None, val=None, test=None, root=None, sampler=None,
        train_transforms=[Part(RandomFlip(1.0))], eval_transforms=[],
        aspect_ratio_grouping=True, filter_empty=True, workers=0, max_bad_images=0, mask_format="polygon",
        close_mixing_epochs=0, timeout=60.0,
    )  # fmt: skip
    return SimpleNamespace(
        seed=3,
        source="x.yaml",
        data=SimpleNamespace(**{**settings, **data}),
        train=SimpleNamespace(batch_size=2),
        evaluate=SimpleNamespace(batch_size=1),
    )


def test_a_recipe_builds_both_loaders(dataset):
    loader = build_train_loader(recipe_for(), dataset)
    assert loader.steps_per_epoch == 10 / 2  # the image with only a crowd is dropped
    assert build_train_loader(recipe_for(filter_empty=False), dataset).steps_per_epoch == 11 / 2
    assert take(loader, 1)[0][0]["instances"].gt_boxes.tensor[0, 0] > 1  # mirrored
    assert len(build_eval_loader(recipe_for(), dataset)) == 11
    sampler = TrainingSampler(shuffle=False)
    assert build_train_loader(recipe_for(sampler=Part(sampler)), dataset).sampler is sampler


CROWD = {"bbox": [0, 0, 1, 1], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0, "iscrowd": 1}


def test_nothing_to_train_on_is_an_error():
    with pytest.raises(RecipeError, match=r"x\.yaml: split is 'train', but data\.train is not set"):
        build_train_loader(recipe_for())
    crowd = {"file_name": "a", "width": 1, "height": 1, "annotations": [CROWD]}
    with pytest.raises(DataError, match="none of its 1 images has an annotation"):
        build_train_loader(recipe_for(), Dataset([crowd], Metadata("cells")))
    with pytest.raises(DataError, match="dataset cells: there are no images"):
        build_train_loader(recipe_for(filter_empty=False), Dataset([], Metadata("cells")))


def test_a_worker_that_holds_a_lock_is_not_ended_by_the_signal(monkeypatch):
    """The main process takes the lock of the event that ends its workers; a worker that is gone would keep it."""
    ended = []
    monkeypatch.setattr(worker_module.os, "_exit", ended.append)
    event = multiprocessing.get_context("spawn").Event()
    monkeypatch.setattr(event._cond, "notify_all", lambda: worker_module._leave(sys._getframe()))
    event.set()
    assert ended == []
    worker_module._leave(sys._getframe())
    assert ended == [0]


class Stopped(BaseException):
    """What the handler of a signal raises here."""


@pytest.fixture
def stopped_by_sigterm():
    def stop(number, frame):
        if os.getpid() == owner:
            raise Stopped

    owner, before = os.getpid(), signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, stop)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.timeout(60)
def test_a_signal_while_the_workers_start_ends_them_though_they_are_stuck(dataset, stopped_by_sigterm):
    class Plan:
        def __iter__(self):  # first asked when all workers run and none has a batch
            yield [SampleKey(0, 0)]
            time.sleep(0.5)  # the first worker is at its image by now
            os.kill(os.getpid(), signal.SIGTERM)
            yield [SampleKey(0, 1)]

    reader = SampleReader(PackedDicts(dataset), Mapper([Stuck()], training=True), workers=2)
    others = set(multiprocessing.active_children())
    with pytest.raises(Stopped):
        next(worker_batches.outcomes_of(reader, Plan(), 2, "fork", 30.0))
    assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()
    left = set(multiprocessing.active_children()) - others
    for worker in left:
        worker.join(10)
    assert not any(worker.is_alive() for worker in left)


def test_a_forked_worker_lives_through_a_signal_before_it_has_its_handlers(dataset, monkeypatch):
    """torch gives each worker a handler that ends it, just before the worker can set its own."""

    def set_handlers():
        torch_handlers()
        os.kill(os.getpid(), signal.SIGTERM)

    torch_handlers = signal_handling._set_worker_signal_handlers
    monkeypatch.setattr(signal_handling, "_set_worker_signal_handlers", set_handlers)
    outcomes_come(SampleReader(PackedDicts(dataset), Mapper([], training=True), workers=1), "fork")


@pytest.mark.timeout(120)
def test_a_spawned_worker_lives_through_a_signal_before_it_has_its_handlers(dataset):
    outcomes_come(SignaledWhenRead(PackedDicts(dataset), Mapper([], training=True), workers=1), "spawn")


class SignaledWhenRead(SampleReader):
    """The worker gets SIGTERM while it reads what it was sent."""

    def __setstate__(self, state):
        self.__dict__.update(state)
        os.kill(os.getpid(), signal.SIGTERM)


def outcomes_come(reader, start_method):
    plan = [[SampleKey(0, 0)], [SampleKey(0, 1)]]
    outcomes = list(worker_batches.outcomes_of(reader, plan, 1, start_method, 100.0))
    assert [one.sample is not None for batch in outcomes for one in batch] == [True, True]
