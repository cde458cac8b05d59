"""Train CycleGAN on two unpaired sets of images: folders, or procedural facades.

python examples/cyclegan.py                             # procedural facades, a few minutes on a laptop
python examples/cyclegan.py --data DIR                  # DIR/trainA and DIR/trainB; DIR/testA and DIR/testB for samples
python examples/cyclegan.py --data-a HORSES --data-b ZEBRAS
torchrun --nproc-per-node=4 examples/cyclegan.py --data DIR             # four processes, one GPU each
"""

import argparse
from pathlib import Path

import torch
from training import (
    add_data_flags,
    add_flags,
    add_network_flags,
    check_procedural,
    data_arguments,
    given,
    main,
    make_discriminator,
    make_generator,
    method_arguments,
    plan,
    trainer_arguments,
    warm_start,
)

from imtrans import CycleGAN, ResnetGenerator, Trainer, UnpairedFacades, UnpairedImages
from imtrans.data.crop_dataset import Size
from imtrans.distributed.process_group import init_process_group
from imtrans.errors import DataError
from imtrans.methods.recipes import resnet_blocks
from imtrans.runtime import pick_device


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with trainA/, trainB/ and, for samples, testA/, testB/")
    parser.add_argument("--data-a", type=Path, metavar="DIR", help="folder of images; needs --data-b")
    parser.add_argument("--data-b", type=Path, metavar="DIR", help="folder of images; needs --data-a")
    parser.add_argument("--direction", choices=["AtoB", "BtoA"], default="AtoB", help="AtoB: the sources are in A")
    parser.add_argument("--epochs", type=int, help="total (200; 5 for procedural facades)")
    add_data_flags(parser, procedural_size=64)
    parser.add_argument("--base-channels", type=int, help="width of the networks (64; 16 for procedural facades)")
    parser.add_argument("--out", type=Path, default=Path("runs/cyclegan"))
    add_flags(parser, paired=False)
    add_network_flags(parser, CycleGAN, norm="instance", dropout=False)
    args = parser.parse_args()
    if (args.data_a is None) != (args.data_b is None) or (args.data is not None and args.data_a is not None):
        parser.error("give --data, or --data-a and --data-b, or none of them")
    if not (args.data or args.data_a):
        check_procedural(parser, args)
    return args


def run(args: argparse.Namespace) -> None:
    group = init_process_group(pick_device(args.device))
    say = print if group.is_rank0 else lambda text: None
    real = args.data is not None or args.data_a is not None
    size = given(args.size, 256 if real else 64)
    width = given(args.base_channels, 64 if real else 16)
    if real:
        train, test = folders(args, size)
    else:
        train = UnpairedFacades(200, size=size, seed=2 * args.seed, direction=args.direction)
        test = UnpairedFacades(4, size=size, seed=2 * args.seed + 1, direction=args.direction, augment=False)
    say(f"training on   {train}\nsamples of    {test or 'the training data: there is no testA/ with testB/'}")

    to_target, to_source = (
        make_generator(
            args, ResnetGenerator, {"num_blocks": resnet_blocks(size)}, base_channels=width, seed=args.seed + i
        )
        for i in (0, 1)
    )
    target_discriminator, source_discriminator = (
        make_discriminator(args, 3, base_channels=width, seed=args.seed + i) for i in (2, 3)
    )
    method = CycleGAN(
        to_target,
        to_source,
        target_discriminator=target_discriminator,
        source_discriminator=source_discriminator,
        **method_arguments(args),
    )
    warm_start(args, method, group)
    trainer = Trainer(
        method,
        train,
        val_data=test,
        epochs=given(args.epochs, 200 if real else 5),
        **trainer_arguments(args, size=size),
    )
    say(plan(trainer, args.batch_size, group))
    trainer.fit(resume=args.resume)
    say(f"\ngenerators {args.out / 'to_target'}\n           {args.out / 'to_source'}")
    say(f"gallery    {(args.out / 'index.html').resolve().as_uri()}")
    if args.push_to_hub:
        say(f"pushed to  {trainer.push_to_hub(args.push_to_hub)}")


def folders(args: argparse.Namespace, size: Size) -> tuple[UnpairedImages, UnpairedImages | None]:
    same = {**data_arguments(args, size), "direction": args.direction, "seed": args.seed}
    if args.data is None:
        return UnpairedImages(args.data_a, args.data_b, **same), None
    missing = [name for name in ("trainA", "trainB") if not (args.data / name).is_dir()]
    if missing and args.data.is_dir():
        raise DataError(
            f"{args.data} has no folder {' and no '.join(missing)}. Put the images of one set in trainA and of the "
            "other in trainB, or give two folders with --data-a and --data-b."
        )
    train = UnpairedImages(args.data / "trainA", args.data / "trainB", **same)
    if not all((args.data / name).is_dir() for name in ("testA", "testB")):
        return train, None
    return train, UnpairedImages(args.data / "testA", args.data / "testB", augment=False, **same)


if __name__ == "__main__":
    torch.set_float32_matmul_precision("high")
    raise SystemExit(main(run, arguments()))
