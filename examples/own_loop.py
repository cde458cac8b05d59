"""A pix2pix training loop in plain PyTorch, with networks and losses from imtrans."""

import argparse

import torch
from torch.nn.functional import l1_loss
from torch.optim import Adam
from torch.utils.data import DataLoader

from imtrans import GANLoss, PatchDiscriminator, ProceduralFacades, UNetGenerator

argparse.ArgumentParser(description=__doc__).parse_args()  # --help prints the line above
torch.manual_seed(0)
data = ProceduralFacades(64, size=64)
generator = UNetGenerator(base_channels=16, depth=6, skips=["gate", "concat", "concat", "add", "concat"])
discriminator = PatchDiscriminator.for_receptive_field(34, in_channels=6, base_channels=16, norm="instance")
gan = GANLoss("hinge")
optimizer_g = Adam(generator.parameters(), lr=2e-4, betas=(0.5, 0.999))
optimizer_d = Adam(discriminator.parameters(), lr=2e-4, betas=(0.5, 0.999))
print(generator.summary())
print(f"receptive field of the discriminator: {discriminator.receptive_field} pixels")

for epoch in range(2):
    for batch in DataLoader(data, batch_size=4, shuffle=True):
        source, target = batch["source"], batch["target"]
        fake = generator(source)

        real_logits = discriminator(torch.cat([source, target], dim=1))
        fake_logits = discriminator(torch.cat([source, fake.detach()], dim=1))
        loss_d = gan.discriminator(real_logits, fake_logits)
        optimizer_d.zero_grad()
        loss_d.backward()
        optimizer_d.step()

        loss_g = gan.generator(discriminator(torch.cat([source, fake], dim=1))) + 100 * l1_loss(fake, target)
        optimizer_g.zero_grad()
        loss_g.backward()
        optimizer_g.step()
    print(f"epoch {epoch}: discriminator {loss_d.item():.3f}, generator {loss_g.item():.3f}")

generator.save_pretrained("runs/own_loop/generator")
print("saved to runs/own_loop/generator")
