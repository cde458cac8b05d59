"""The page for users of pytorch-CycleGAN-and-pix2pix."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "coming-from.md"
OPTIONS = """
    aspect_ratio batch_size beta1 checkpoints_dir continue_train crop_size dataroot dataset_mode direction
    display_env display_freq display_id display_ncols display_port display_server display_winsize epoch
    epoch_count eval gan_mode gpu_ids init_gain init_type input_nc lambda_A lambda_B lambda_L1 lambda_identity
    lambda_regression load_iter load_size lr lr_decay_iters lr_policy max_dataset_size model model_suffix
    n_epochs n_epochs_decay n_layers_D name ndf netD netG ngf no_dropout no_flip no_html norm num_test
    num_threads output_nc phase pool_size preprocess print_freq results_dir save_by_iter save_epoch_freq
    save_latest_freq serial_batches suffix update_html_freq use_wandb verbose
"""
"""The options of base_options, train_options, test_options and of the models, template included."""


def test_each_option_of_the_reference_has_one_row():
    rows = re.findall(r"^\| (.+?) \| (.+) \|$", PAGE.read_text(), re.M)
    named = {option for first, _ in rows for option in re.findall(r"`--(\w+)", first)}
    assert named == set(OPTIONS.split())
