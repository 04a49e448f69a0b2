"""The files of the miniature's pretrained nets, which are part of this package: names, sizes, digests, licence.

They are identified by their SHA-256 like every other asset, but never downloaded. `cgn.miniature.pretraining` trained
them on this project's own synthetic world, so they have this project's licence. fetch reads this module without torch.
"""

from dataclasses import dataclass
from pathlib import Path

from cgn.core.errors import ArtifactError
from cgn.core.files import sha256

FOLDER = Path(__file__).parent / "weights"


@dataclass(frozen=True, kw_only=True)
class Shipped:
    """One weights file of the package."""

    name: str
    bytes: int
    sha256: str
    licence: str = "MIT (this project, trained on its own synthetic world)"

    @property
    def path(self) -> Path:
        """Its path in the installed package."""
        return FOLDER / self.name

    def verified(self) -> Path:
        """The path of the file, whose SHA-256 is checked. Raises ArtifactError for a missing or another file."""
        if not self.path.is_file():
            raise ArtifactError(f"{self.path} is missing from the installed package: install the project again")
        if (found := sha256(self.path)) != self.sha256:
            raise ArtifactError(f"{self.path} has sha256 {found}, expected {self.sha256}: install the project again")
        return self.path


BIGGAN = Shipped(
    name="biggan.safetensors",
    bytes=1_328_762,
    sha256="6cc80a9cd0f247af1fdc084e6572ade40dcb88f3232d8c6fc8f40e73573f3f4d",
)
SEGMENTER = Shipped(
    name="segmenter.safetensors",
    bytes=365_226,
    sha256="f58a9aa7ff811a3a786692a5c6a7ceb61309acd6e3bc084dc8040567c9281121",
)
FEATURES = Shipped(
    name="features.safetensors",
    bytes=233_480,
    sha256="bb3374eef2ba522e1ae010c720cddf9c02aff28b8f59a6b12df52ba718d4f356",
)
SHIPPED = (BIGGAN, SEGMENTER, FEATURES)
