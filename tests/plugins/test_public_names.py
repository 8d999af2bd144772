"""What a plugin may rely on: the public names, and a warning one minor release before one goes."""

import importlib
import subprocess
import sys
import warnings

import pytest

import vertebra
from vertebra._deprecation import MOVED, RENAMED, Renamed, VertebraDeprecationWarning, new_name_of
from vertebra.plugins.locate import locate_module

PUBLIC = set(
    """
    __version__ AnchorGenerator BACKBONES Backbone BaseModel Batch BitMasks Box2BoxTransform BoxMode Boxes
    CheckpointError DataError Dataset DatasetCatalog EVALUATORS Evaluator ExportError FORMATS Format HEADS HOOKS
    Head Hook ImageList Instances Keypoints LOSSES Loss MODELS Matcher Metadata MetadataCatalog Model NECKS Neck
    OPTIMIZERS PARTS PluginError PolygonMasks Predictor Recipe RecipeError Registry SAMPLERS SCHEDULES SetupError
    ShapeSpec TRANSFORMS Trainer TrainingDiverged Transform VertebraError build_model evaluate export_onnx
    load_recipe pairwise_iou
    """.split()  # noqa: SIM905  one name a line would fill two screens
)


def test_the_public_names_are_these():
    # A name may be added here at any time. To take one away, enter it in vertebra/_deprecation.py and keep it for one
    # minor release.
    assert set(vertebra.__all__) == PUBLIC and len(vertebra.__all__) == len(PUBLIC)


def test_a_deprecated_name_warns_at_the_line_that_uses_it():
    renamed = {"OldHead": Renamed("Head", until="0.3")}
    with pytest.warns(
        VertebraDeprecationWarning, match=r"vertebra\.OldHead is now vertebra\.Head; .* vertebra 0\.3"
    ) as got:
        assert new_name_of("OldHead", renamed, stacklevel=2) == "Head"
    assert got[0].filename == __file__


def test_a_deprecated_name_still_works(monkeypatch):
    monkeypatch.setitem(RENAMED, "OldHead", Renamed("RecipeError", until="9.0"))
    with pytest.warns(VertebraDeprecationWarning, match="OldHead") as got:
        assert vertebra.OldHead is vertebra.RecipeError
    assert got[0].filename == __file__


def test_a_name_that_never_was_is_an_attribute_error_and_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(AttributeError, match="has no attribute 'Haed'"):
            _ = vertebra.Haed


def test_each_deprecated_name_has_a_successor_and_goes_in_time():
    here = tuple(map(int, vertebra.__version__.split(".")[:2]))
    for old, (new, until) in RENAMED.items():
        assert new in vertebra.__all__ and old not in vertebra.__all__
        assert tuple(map(int, until.split("."))) > here, f"{old} should be gone from vertebra {vertebra.__version__}"


@pytest.mark.parametrize(("old", "moved"), MOVED.items())
def test_a_module_is_found_by_its_former_name(repository, monkeypatch, old, moved):
    place = repository / "core" / "vertebra" / old.replace(".", "/")
    assert not (place / "__init__.py").exists() and not place.with_suffix(".py").exists()
    monkeypatch.delitem(sys.modules, f"vertebra.{old}", raising=False)
    with pytest.warns(VertebraDeprecationWarning, match=rf"vertebra\.{old} is now vertebra\.{moved.new};") as got:
        exec(compile(f"import vertebra.{old}", __file__, "exec"))
    assert sys.modules[f"vertebra.{old}"] is importlib.import_module(f"vertebra.{moved.new}")
    assert got[0].filename == __file__
    assert locate_module(f"vertebra.{old}") == locate_module(f"vertebra.{moved.new}") is not None
    assert tuple(map(int, moved.until.split("."))) > tuple(map(int, vertebra.__version__.split(".")[:2]))


def test_importing_vertebra_warns_of_nothing():
    # a process of its own: this one has imported vertebra already
    subprocess.run([sys.executable, "-W", "error", "-c", "import vertebra, vertebra.registry"], check=True)
