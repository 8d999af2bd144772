"""Forty plugins are installed, ten are broken: listing is instant, each is explained, and nobody else is harmed."""

import json
import os
import resource
import subprocess
import sys
import time

import pytest
from dummy_plugins import BROKEN

from vertebra.plugins import installed_plugins, rescan

TINY = [
    "data.train.images=4",
    "data.val.images=4",
    "train.steps=2",
    "train.epochs=null",
    "train.batch_size=2",
    "data.workers=0",
    "model.neck.out_channels=16",
    "evaluate.pictures=0",
    "evaluate.report=false",
    "data.train_transforms=[]",
    "seed=3",
]


def test_listing_forty_plugins_takes_under_half_a_second_and_names_them_all(site, tmp_path):
    # in processes of their own: the time that one takes to start is the point
    path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", "PYTHONPATH": path}
    command = [sys.executable, "-m", "vertebra", "plugins"]
    seconds = []
    for _ in range(4):
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=True)
        listing = done.stdout
        wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(min(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime))
    assert listing.count("A dummy.") == 40
    assert "b-future 1.0  A dummy.\n  head       Broken6\n  PROBLEM: it needs vertebra<100,>=99" in listing
    assert min(seconds) < 0.5  # of this process where others keep the machine busy


def test_listing_forty_plugins_imports_neither_torch_nor_a_plugin(site, monkeypatch):
    monkeypatch.syspath_prepend(str(site))
    rescan()
    before = set(sys.modules)
    assert len([plugin for plugin in installed_plugins() if plugin.summary == "A dummy."]) == 40
    assert not {name for name in set(sys.modules) - before if name.startswith(("torch", "dummy_"))}
    rescan()


@pytest.mark.slow  # forty processes, one of which hangs until it is ended
def test_check_explains_each_broken_plugin_and_finds_the_others_sound(site, vertebra):
    done = vertebra("plugins", "check", "--timeout", 3, site=site, code=1)
    reports = {}
    for line in done.stdout.splitlines():
        if line.startswith(("b-", "g-", "vertebra-")):
            name = line.split()[0]
            reports[name] = ""
        reports[name] += f"{line}\n"
    for name, (_, words) in BROKEN.items():
        assert reports[name].startswith(f"{name} 1.0: BROKEN\n")
        assert words in reports[name]
    sound = [name for name, report in reports.items() if " 1.0: ok, " in report]
    assert len(sound) == 30 and not set(sound) & set(BROKEN)
    assert "  | hello from loud" in reports["g-loud"] and "loud warns" in reports["g-loud"]
    assert "dummy_b_hangs.py" in reports["b-hangs"]  # where it hangs
    assert "vertebra-retinanet 0.1.0: ok" in done.stdout
    assert done.stdout.endswith(f"{len(reports)} checked, 10 broken\n")


def test_a_plugin_is_explained_when_a_recipe_names_it(site, vertebra, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("_base_: retinanet:retinanet_shapes_quick\nmodel: {heads: {boxes: {name: Broken0}}}\n")
    said = vertebra("config", recipe, site=site, code=2).stderr
    assert "recipe.yaml:2" in said and "head Broken0 of plugin b-raises 1.0 cannot be imported" in said
    assert said.rstrip().endswith("RuntimeError: no license file")  # the original traceback stands at the end
    assert "/vertebra/" not in said.partition("Traceback")[2]


def test_what_a_plugin_prints_does_not_mix_with_the_commands_output(site, vertebra, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("_base_: retinanet:retinanet_shapes_quick\nmodel: {heads: {boxes: {name: Loud}}}\n")
    done = vertebra("config", recipe, site=site)
    assert done.stdout.startswith("seed:") and "hello" not in done.stdout
    assert "hello from loud" in done.stderr


@pytest.mark.slow
def test_a_run_that_names_none_of_them_is_untouched(site, vertebra, tmp_path):
    for folder, there in (("alone", None), ("beside", site)):
        said = vertebra("train", "retinanet:retinanet_shapes_quick", "-o", folder, *TINY, site=there)
        assert "b-" not in said.stderr and "dummy" not in said.stderr
    alone, beside = (
        [json.loads(line) for line in (tmp_path / folder / "metrics.jsonl").read_text().splitlines()]
        for folder in ("alone", "beside")
    )
    assert [line.get("loss") for line in alone] == [line.get("loss") for line in beside]
    assert any("loss" in line for line in alone)
