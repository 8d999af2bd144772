"""A local plugin in a run: seen by every process, copied into the folder, known to checkpoints by its hash."""

import hashlib
import os
import subprocess
import sys

import pytest
import torch
from tiny_local import SOURCE

from clean_slate import forget_local_plugins
from vertebra import HEADS, TRANSFORMS, PluginError, Predictor, Trainer, load_recipe
from vertebra.data import build_train_loader
from vertebra.models import read_checkpoint, read_weights
from vertebra.plugins.local_files import ANNOUNCED, load_local_plugin

PLUGIN_FILES = "vertebra.engine.plugin_files"
SHA = hashlib.sha256(SOURCE.encode()).hexdigest()


def test_a_run_keeps_the_file_and_its_hash(project):
    Trainer(load_recipe("recipe.yaml"), output_dir="run").train()
    assert (project / "run/plugins/my_head.py").read_text() == SOURCE
    assert "plugins: [plugins/my_head.py]\n" in (project / "run/recipe.yaml").read_text()
    for checkpoint in ("run/final.pth", "run/checkpoints/step_0000002.pth"):
        assert torch.load(project / checkpoint, weights_only=True)["plugins"] == {"my_head.py": SHA}
    assert f"local plugin my_head.py ({project / 'my_head.py'}), sha256 {SHA}" in (project / "run/log.txt").read_text()


def test_the_runs_own_recipe_uses_the_copy_when_the_file_went_on(project, caplog):
    Trainer(load_recipe("recipe.yaml"), output_dir="run").train()
    (project / "my_head.py").write_text(SOURCE.replace("TinyHead", "NewerHead"))
    Predictor("run/recipe.yaml", "run/final.pth", device="cpu")
    assert not [record for record in caplog.records if record.name == PLUGIN_FILES]


def test_a_file_that_differs_from_the_trained_one_is_said(project, caplog):
    Trainer(load_recipe("recipe.yaml"), output_dir="run").train()
    (project / "my_head.py").write_text(SOURCE + "# edited\n")
    Predictor("recipe.yaml", "run/final.pth", device="cpu")
    [said] = [record.getMessage() for record in caplog.records if record.name == PLUGIN_FILES]
    assert f"run/final.pth: local plugin {project / 'my_head.py'} is not the my_head.py of the checkpoint" in said
    assert f"it was {SHA[:12]}" in said and "the run's folder plugins/" in said


def test_a_resumed_run_says_what_changed_and_keeps_the_old_file(project):
    Trainer(load_recipe("recipe.yaml"), output_dir="run").train()
    Trainer(load_recipe("recipe.yaml", ["train.steps=3"]), output_dir="run", resume=True).train()
    log = (project / "run/log.txt").read_text()
    assert (
        "train.steps: 2 -> 3" in log
        and "plugins" not in log.partition("from here on")[2]
        and "of the checkpoint:" not in log
    )
    (project / "my_head.py").write_text(SOURCE + "# edited\n")
    Trainer(load_recipe("recipe.yaml", ["train.steps=4"]), output_dir="run", resume=True).train()
    assert "my_head.py is not the my_head.py of the checkpoint" in (project / "run/log.txt").read_text()
    assert (project / "run/plugins/my_head.until_step_3.py").read_text() == SOURCE
    assert (project / "run/plugins/my_head.py").read_text() == SOURCE + "# edited\n"


def test_reading_a_checkpoint_never_runs_the_plugin(project):
    Trainer(load_recipe("recipe.yaml"), output_dir="run").train()
    forget_local_plugins()
    os.environ.pop(ANNOUNCED)
    content = read_checkpoint("run/final.pth")
    assert content["plugins"] == {"my_head.py": SHA} and "plugins/my_head.py" in content["recipe"]
    assert "heads.boxes.conv.weight" in read_weights("run/final.pth")
    assert not [name for name in sys.modules if "my_head" in name]


def test_spawned_data_workers_see_its_transforms(project):
    # a real process, which has imported nothing of what this one has
    recipe = load_recipe("recipe.yaml", ["data.workers=1"])
    loader = build_train_loader(recipe)
    loader.start_method = "spawn"
    batches = loader.batches()
    assert next(batches)[0]["image"].shape == (3, 64, 64)
    batches.close()


def test_an_edited_file_is_imported_anew_and_a_copy_is_the_same_plugin(project):
    first = load_local_plugin("my_head.py")
    (project / "copies").mkdir()
    (project / "copies/my_head.py").write_text(SOURCE)
    assert load_local_plugin("copies/my_head.py") is first
    (project / "my_head.py").write_text(SOURCE.replace("gain: float = 1.0", "gain: float = 2.0"))
    second = load_local_plugin("my_head.py")
    assert second is not first and HEADS.get("TinyHead") is second.TinyHead
    assert not (project / "__pycache__").exists()


def test_a_recipe_names_further_files_from_python_once(project):
    recipe = load_recipe("recipe.yaml", plugins=["my_head.py"])
    assert recipe.plugins == [str(project / "my_head.py")]
    (project / "recipe.yaml").write_text((project / "recipe.yaml").read_text().replace("plugins: [./my_head.py]\n", ""))
    assert load_recipe("recipe.yaml", plugins=["my_head.py"]) == recipe


def test_a_path_that_cannot_be_handed_on_is_refused(project):
    folder = project / "a:b"
    folder.mkdir()
    (folder / "x.py").write_text("")
    with pytest.raises(PluginError, match="':' in its path cannot be passed on to other processes"):
        load_local_plugin(folder / "x.py")


def test_a_file_that_fails_is_announced_to_no_other_process(project):
    load_local_plugin("my_head.py")
    announced = os.environ[ANNOUNCED]
    (project / "bad.py").write_text("raise RuntimeError('half done')\n")
    with pytest.raises(PluginError, match="half done"):
        load_local_plugin("bad.py")
    assert os.environ[ANNOUNCED] == announced == str(project / "my_head.py")
    forget_local_plugins()  # as in a process that is started now, which has the variables of this one
    assert HEADS.get("TinyHead").__name__ == "TinyHead"
    assert len([name for name in sys.modules if name.startswith("vertebra.plugins.local_files.")]) == 1
    (project / "bad.py").write_text("")  # fixed
    load_local_plugin("bad.py")
    assert os.environ[ANNOUNCED] == os.pathsep.join([announced, str(project / "bad.py")])


def test_a_file_that_fails_leaves_nothing_registered(project):
    (project / "my_head.py").write_text(SOURCE + "raise RuntimeError('half done')\n")
    with pytest.raises(PluginError, match="half done"):
        load_local_plugin("my_head.py")
    assert "TinyHead" not in HEADS.registered() and "Nothing" not in TRANSFORMS.registered()


def test_a_file_that_an_edit_breaks_harms_no_other_recipe(project):
    load_local_plugin("my_head.py")
    (project / "my_head.py").write_text("raise RuntimeError('edited')\n")
    with pytest.raises(PluginError, match="edited"):
        load_local_plugin("my_head.py")
    assert not os.environ[ANNOUNCED] and "TinyHead" not in HEADS
    load_recipe("retinanet:retinanet_shapes_quick")


def test_a_class_that_an_edit_removes_is_gone(project):
    load_local_plugin("my_head.py")
    (project / "my_head.py").write_text(SOURCE.replace("TinyHead", "NewerHead"))
    load_local_plugin("my_head.py")
    assert "NewerHead" in HEADS and "TinyHead" not in HEADS


def test_plugin_option_works_before_and_after_the_command(project, vertebra):
    (project / "recipe.yaml").write_text((project / "recipe.yaml").read_text().replace("plugins: [./my_head.py]\n", ""))
    said = vertebra("config", "recipe.yaml", code=2).stderr
    assert "no head has the name 'TinyHead'" in said
    after = vertebra("config", "recipe.yaml", "--plugin", "my_head.py").stdout
    before = vertebra("--plugin", "my_head.py", "config", "recipe.yaml").stdout
    assert f"plugins: [{project / 'my_head.py'}]" in after and after == before


@pytest.mark.slow
def test_ranks_of_torchrun_see_it(project):
    # torchrun starts real processes
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node=2",
        "--standalone",  # on a free port
        "-m",
        "vertebra",
    ]
    command += ["train", "recipe.yaml", "-o", "run", "--plugin", "my_head.py", "train.device=cpu"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("VERTEBRA_")}
    done = subprocess.run(command, capture_output=True, text=True, env={**environment, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert "2 process(es)" in (project / "run/log.txt").read_text()
