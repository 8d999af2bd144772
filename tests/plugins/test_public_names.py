"""What a plugin may rely on: the public names, and a warning one minor release before one goes."""

import importlib
import pkgutil
import subprocess
import sys
import warnings
from types import ModuleType

import pytest

import vertebra
from vertebra._deprecation import MOVED, RENAMED, Renamed, VertebraDeprecationWarning, new_name_of
from vertebra.plugins.locate import locate_module

PUBLIC = {
    "vertebra": """
    __version__ AnchorGenerator BACKBONES Backbone BaseModel Batch BitMasks Box2BoxTransform BoxMode Boxes
    CheckpointError DataError Dataset DatasetCatalog EVALUATORS Evaluator ExportError FORMATS Format HEADS HOOKS
    Head Hook ImageList Instances Keypoints LOSSES Loss MODELS Matcher Metadata MetadataCatalog Model NECKS Neck
    OPTIMIZERS PARTS PluginError PolygonMasks Predictor Recipe RecipeError Registry SAMPLERS SCHEDULES SetupError
    ShapeSpec TRANSFORMS Trainer TrainingDiverged Transform VertebraError build_model evaluate export_onnx
    load_recipe pairwise_iou
    """,
    "vertebra.models": """
        Backbone BaseModel Batch ClassRows DetectionHead GroundTruth Head InferenceMode LoadReport Loss Model Neck
        ResNet SemanticHead ShapeSpec build_model check_archive chosen_level describe_input exported_labels
        exported_scores fetch finest_first fold_into fuse_conv_bn load_weights read_checkpoint read_pickle_content
        read_weights same_channels semantic_losses semantic_predictions
    """,
    "vertebra.models.losses": """
        BinaryCrossEntropy BoundaryLoss CIoULoss CompoundLoss CrossEntropy DIoULoss DiceLoss
        DistanceWeightedCrossEntropy GIoULoss HardPixelCrossEntropy IoULoss JaccardLoss L1Loss LovaszSoftmax
        PixelBCE PixelFocalLoss SigmoidFocalLoss SmoothL1Loss TverskyLoss check_unreduced
    """,
    "vertebra.models.layers": """
        ASPP BilinearConvTranspose2d ConvNorm LargeSeparableKernel MaxPoolWithIndices MaxUnpool NormName
        PyramidPooling SeparableConvNorm Upsample becomes_graph bilinear_kernel crop crop_like fill_bias
        get_norm msra_fill normal_fill resize visible_taps xavier_fill
    """,
    "vertebra.detection": """
        AnchorGenerator BACKGROUND Box2BoxTransform Box2BoxTransformLinear Candidates IGNORE Matcher Suppression
        batched_nms batched_nms_rotated by_anchor nms_rotated rescale_instances sem_seg_postprocess
        subsample_labels suppress top_values topk_candidates
    """,
    "vertebra.structures": """
        BitMasks BoxMode Boxes DenseMap IGNORED_LABEL ImageList Instances Keypoints PolygonMasks RotatedBoxes
        clip_to_size decode_rle encode_masks heatmaps_to_keypoints matched_pairwise_iou matched_rotated_iou
        pad_boxes pad_rows padded_size pairwise_intersection pairwise_ioa pairwise_iou pairwise_iou_rotated
        pairwise_point_box_distance paste_masks_as_rle paste_masks_in_image polygons_to_bitmask
        resize_masks_in_boxes segmentation_to_bitmask touched_cells
    """,
    "vertebra.data": """
        CocoFormat CocoPanopticFormat Dataset DatasetCatalog EvalLoader Format ImageReader LabelReader Mapper
        Metadata MetadataCatalog Problems RepeatFactorSampler Sample Sampler SemanticClasses
        SemanticFolderFormat ShapesFormat TrainLoader TrainingSampler Transform build_eval_loader build_mapper
        build_train_loader drop_empty load_dataset load_split match_classes pair_files read_image read_labels
        read_names records_of register_coco_instances resolve_path stuff_segment_names
    """,
    "vertebra.data.transforms": """
        ClassBalancedCrop ColorJitter ColorTransform ElasticDeform GaussianNoise HSVJitter LargeScaleJitter
        MixTransform MixUp Mosaic PadTo RandomAffine RandomCrop RandomFlip RandomGamma RandomQuarterTurn
        RandomRotation RandomScaleCrop ResizeLetterbox ResizeShortestEdge ResizeStretch Sample Transform
        join_instances
    """,
    "vertebra.evaluation": """
        COCOEvaluator EvaluationResult Evaluator Facts Figure Gallery LVISEvaluator PanopticEvaluator Picture
        Section SemSegEvaluator Table Text VOCEvaluator average_precision coco_evaluate draw_pairs evaluate
        lvis_evaluate match_by_overlap panoptic_evaluate print_evaluation voc_evaluate
    """,
    "vertebra.export": """
        ExportReport OnnxModel export_onnx suppressed suppressed_candidates
    """,
    "vertebra.testing": """
        BackboneConformance EvaluatorConformance FormatConformance HeadConformance HookConformance LossConformance
        ModelConformance NeckConformance SamplerConformance TransformConformance
    """,
    "vertebra.runtime": """
        autocast autocast_dtype choose_device gather_to_main is_main_process make_grad_scaler on_main_process
        rank supports_bf16 use_channels_last world_size
    """,
    "vertebra.engine": """
        CheckpointStore Hook ImportReport Layout NormAndBias OptimizerBuilder ParameterGroup Parts Plan
        RunFolder Schedule Step Trainer autocast choose_device choose_run_folder import_weights is_main_process
        launch parameter_groups rank read_checkpoint seed_everything supports_bf16 world_size write_checkpoint
    """,
    "vertebra.errors": """
        CheckpointError DataError ExportError PluginError RecipeError SetupError TrainingDiverged VertebraError
    """,
    "vertebra.visualize": """
        PALETTE Style class_color contact_sheet draw_dataset_dict draw_errors draw_instances draw_iou_bars
        draw_panoptic draw_sem_seg draw_sem_seg_overlay draw_semantic_panel draw_uncertainty entropy_map
        save_png side_by_side skeleton_of with_legend with_scale
    """,
    "vertebra.files": """
        check_regular free_path open_regular open_whole read_bytes read_json read_text write_bytes write_json
        write_text
    """,
}


@pytest.mark.parametrize("module", PUBLIC)
def test_the_public_names_are_these(module):
    # A name may be added here at any time. To take one away, enter it in vertebra/_deprecation.py and keep it for one
    # minor release.
    found = importlib.import_module(module)
    assert sorted(found.__all__) == sorted(PUBLIC[module].split())
    assert [name for name in found.__all__ if not hasattr(found, name)] == []
    # a name that is imported on first use would be a module of this name, once something has imported that
    modules = {one.name for one in pkgutil.iter_modules(getattr(found, "__path__", ()))} & set(found.__all__)
    for name in modules:
        importlib.import_module(f"{module}.{name}")
    assert [name for name in modules if isinstance(getattr(found, name), ModuleType)] == []


@pytest.mark.parametrize("module", PUBLIC)
def test_a_former_name_of_each_module_warns_and_works(monkeypatch, module):
    name = PUBLIC[module].split()[-1]
    prefix = f"{module}.".removeprefix("vertebra.").removeprefix("vertebra")
    monkeypatch.setitem(RENAMED, f"{prefix}Former".lstrip("."), Renamed(f"{prefix}{name}".lstrip("."), until="9.0"))
    with pytest.warns(VertebraDeprecationWarning, match="Former is now") as got:
        exec(compile(f"from {module} import Former", __file__, "exec"), space := {})
    assert space["Former"] is getattr(importlib.import_module(module), name)
    assert got[0].filename == __file__
    with pytest.raises(AttributeError, match=f"module '{module}' has no attribute 'Never'"):
        _ = importlib.import_module(module).Never


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
        module, _, name = f"vertebra.{new}".rpartition(".")
        assert name in PUBLIC[module].split() and old.rpartition(".")[2] not in PUBLIC[module].split()
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
