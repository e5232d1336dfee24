"""The three networks of the `paper` profile (METHOD, section 5), on gray images of 220 x 220 pixels in [-1, 1]."""

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

SIZE, N_CODE, N_FREE = 220, 2048, 96


class Autoencoder(nn.Module):
    """Images (b, 1, 220, 220) to codes z (b, 2048) and back."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 8, 5, 3), nn.ReLU(), nn.Conv2d(8, 16, 3, 3), nn.ReLU(), nn.Conv2d(16, 32, 3, 3), nn.ReLU()
        )
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(32, 16, 3, 3),
            nn.ReLU(),
            nn.ConvTranspose2d(16, 8, 3, 3),
            nn.ReLU(),
            nn.ConvTranspose2d(8, 1, 5, 3, output_padding=2),
            nn.Tanh(),
        )

    def code(self, image: Tensor) -> Tensor:
        return self.encoder(image).flatten(1)

    def forward(self, image: Tensor) -> Tensor:
        return self.decoder(self.encoder(image))


class Classifier(nn.Module):
    """Codes (b, 2048) to template logits (b, T)."""

    def __init__(self, n_templates: int):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(N_CODE, 1050), nn.ReLU(), nn.Linear(1050, n_templates))

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(z)


class Regressor(nn.Module):
    """Codes (b, 2048) and the template c (b,) to d (b, 32, 3) and weights a (b, T).

    The official one does not know c, and so must answer for a template that it has to guess: here c is an input.
    """

    def __init__(self, n_templates: int):
        super().__init__()
        self.n_templates = n_templates
        self.layers = nn.Sequential(
            nn.Linear(N_CODE + n_templates, 1500), nn.ReLU(), nn.Linear(1500, N_FREE + n_templates)
        )

    def forward(self, z: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        out = self.layers(torch.cat([z, one_hot(c, self.n_templates).to(z.dtype)], 1))
        return out[:, :N_FREE].view(-1, 32, 3), out[:, N_FREE:]
