"""Trains or evaluates a recipe with Detectron2's command line.

    python tools/train_net.py --config-file RECIPE --num-gpus 8 [--resume] [--eval-only] [KEY VALUE ...]

KEY VALUE pairs are keys of the recipe (`train.batch_size 16`), also written KEY=VALUE. With one process it is
`vertebra train`; with several it starts them on this machine (or is started by torchrun).
"""

from __future__ import annotations

import argparse

from vertebra.errors import RecipeError


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line of Detectron2's `tools/train_net.py`."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, metavar="FILE", help="recipe: a file or plugin:recipe")
    parser.add_argument("--resume", action="store_true", help="go on where the run in the output folder stopped")
    parser.add_argument("--eval-only", action="store_true", help="evaluate model.weights, do not train")
    parser.add_argument("--num-gpus", type=int, default=1, help="processes (GPUs) on this machine; 0 or 1: no spawning")
    parser.add_argument("--num-machines", type=int, default=1, help="machines in all; more than 1 needs torchrun")
    parser.add_argument("--output", default=None, metavar="DIR", help="the run folder")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="keys of the recipe to replace")
    return parser.parse_args(arguments)


def as_overrides(options: list[str]) -> list[str]:
    """`["train.steps", "10", "seed=3"]` -> `["train.steps=10", "seed=3"]`."""
    overrides, rest = [], list(options)
    while rest:
        key = rest.pop(0)
        if "=" in key:
            overrides.append(key)
        elif rest:
            overrides.append(f"{key}={rest.pop(0)}")
        else:
            raise RecipeError(f"the option {key!r} has no value; write KEY VALUE pairs, such as train.steps 1000")
    return overrides


def run(arguments: argparse.Namespace) -> None:
    """What each process does."""
    from pathlib import Path

    from vertebra.cli.runs import evaluate_weights, train_recipe

    overrides = as_overrides(arguments.opts)
    output = Path(arguments.output) if arguments.output else None
    if arguments.eval_only:
        evaluate_weights(arguments.config_file, overrides, output=output)
    else:
        train_recipe(arguments.config_file, overrides, output=output, resume=arguments.resume)


def main() -> None:
    """Starts one process or several."""
    from vertebra.cli.ending import one_message

    arguments = parse_arguments()
    with one_message("train_net.py"):
        if arguments.num_machines > 1:
            raise RecipeError(
                "for several machines start this script with torchrun:\n"
                "  torchrun --nnodes N --nproc-per-node G --rdzv-endpoint HOST:PORT tools/train_net.py ..."
            )
        if arguments.num_gpus <= 1:
            run(arguments)
            return
        from vertebra.engine import launch

        launch(run, arguments.num_gpus, args=(arguments,))


if __name__ == "__main__":
    main()
