"""Every file that is downloaded: its URLs, size, digests and licence.

A file is identified by its SHA-256. Where only the first digits are documented (torchvision writes eight
of them into the file's name) those are compared, and the full digest is recorded. MNIST's MD5s are the published ones;
the SHA-256 beside them were computed from files that have these MD5s. ImageNet-C has MD5s only; where nothing is
documented, the file must be of its `kind` and contain what it should (`cgn.download.verification`); the digest of the
first one that does is recorded beside it and is required from then on.
`urls` are tried in order; an asset without any is only found in the folder that CGN_MIRROR names. File names are
unique, so a mirror needs no layout. Archives stay packed.
"""

import re
from dataclasses import dataclass
from typing import Literal

AssetKind = Literal["gzip", "tar", "tar.gz", "zip", "weights", "safetensors", "image"]

MNIST_URLS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
TEXTURES_URL = (
    "https://raw.githubusercontent.com/autonomousvision/counterfactual_generative_networks/"
    "335bebdb47e21a617db9c8ebddce07b670330e7c/mnists/data/textures/"
)


@dataclass(frozen=True, kw_only=True)
class Asset:
    """One file: `sha256` is the hex digest or the documented start of it (8 digits or more)."""

    name: str
    urls: tuple[str, ...]
    sha256: str | None
    """None where no source documents it."""
    licence: str
    bytes: int | None = None
    """None where no source documents it."""
    md5: str | None = None
    kind: AssetKind | None = None
    """What the file is; needed where no digest is documented."""
    holds: tuple[str, ...] = ()
    """Each is part of the name of at least one member of the archive, or of one tensor of the weights."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w][\w.+-]*", self.name):
            raise ValueError(f"asset name {self.name!r}: expected a plain file name")
        if self.sha256 is not None and not re.fullmatch(r"[0-9a-f]{8,64}", self.sha256):
            raise ValueError(f"sha256 {self.sha256!r} of {self.name}: expected 8 to 64 lower-case hex digits")
        if not self.documented and self.kind is None:
            raise ValueError(f"{self.name} has neither a digest nor a kind: one of them is needed")
        for url in self.urls:
            if not url.startswith(("https://", "http://")):
                raise ValueError(f"url {url!r} of {self.name}: only http and https are fetched")

    @property
    def documented(self) -> bool:
        """Whether a source documents a digest of the file."""
        return self.sha256 is not None or self.md5 is not None


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """Data of an installed package: named for the record, never downloaded."""

    name: str
    package: str
    licence: str


SCIKIT_LEARN_DIGITS = Embedded(
    name="digits",
    package="scikit-learn",
    licence="BSD-3-Clause (scikit-learn; a copy of the test set of UCI's Optical Recognition of Handwritten Digits)",
)


def _mnist(name: str, *, size: int, md5: str, sha256: str) -> Asset:
    urls = tuple(base + name for base in MNIST_URLS)
    return Asset(name=name, urls=urls, bytes=size, md5=md5, sha256=sha256, licence="MNIST's own terms")


def _textures(kind: str, files: tuple[tuple[str, int, str], ...]) -> tuple[Asset, ...]:
    licence = "Describable Textures Dataset's terms; distributed with the authors' code (MIT)"
    return tuple(
        Asset(name=name, urls=(f"{TEXTURES_URL}{kind}/{name}",), bytes=size, sha256=sha256, licence=licence)
        for name, size, sha256 in files
    )


MNIST_IMAGES = _mnist(
    "train-images-idx3-ubyte.gz",
    size=9_912_422,
    md5="f68b3c2dcbeaaa9fbdd348bbdeb94873",
    sha256="440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
)
MNIST_LABELS = _mnist(
    "train-labels-idx1-ubyte.gz",
    size=28_881,
    md5="d53e105ee54ea40749a09fcbcd1e9432",
    sha256="3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
)

# The ten classes' textures, in the order of the classes.
OBJECT_FILES = (
    ("0_striped_0001.jpg", 50_473, "41b22c1a1e5edba336302b2ec175fc280647aaae6ebbbbfa9cfc433596305aff"),
    ("1_striped_0091.jpg", 15_214, "d6020007460a7e41a5d654e1c3b2b2ef8243e44aeede630aaa2947c0aedfddb9"),
    ("2_striped_0008.jpg", 35_512, "2ab2fc76e9ffd495ddf690a3d0bdf75158fcc2c73fb24c420ca238ce36a87ca0"),
    ("3_striped_0043.jpg", 61_470, "b9ab6ae10ddb6381a8021305fd41cdf2e575d9a829e2b79b9db218d89ac66537"),
    ("4_striped_0092.jpg", 14_233, "90e4b7683d348fb6d940abca13be4ad619b379ad9b3e2c96fab9f7d4dc4214ad"),
    ("5_striped_0028.jpg", 39_950, "b32940be4462eb40879905f13dfa2753d1e4b044904ed6390da6a8d35735d6d2"),
    ("6_striped_0097.jpg", 65_123, "bd362eefa810a35a24eeffe542a9727c3953ded745fa68e167b68a718b71d731"),
    ("7_striped_0004.jpg", 19_419, "0943891ac43a4acd5d8a874f121ef862a97a1de000c3fb1d936bbe2c6d027c2a"),
    ("8_striped_0125.jpg", 26_046, "edfe305c0e8f9dfa9d1576c9a32ab3f29e74ea1e8b5bab91ab4b9b83aec902e2"),
    ("9_striped_0033.jpg", 54_127, "d22a5fcf1ce2ea648c506d13f31a50eaf2260b903256e40fec32995b531d6933"),
)
BACKGROUND_FILES = (
    ("0_veined_0066.jpg", 515_109, "253effebdb863d8fe4254fd9c3df21e36c9222fad2f454639ad8d1e8b87ed96a"),
    ("1_veined_0067.jpg", 166_388, "67e555623f1fff4a9abda6036e6c76ce6cbcb801ff240e04d8848b475709a4dd"),
    ("2_veined_0073.jpg", 143_312, "91b3dc279226199de4dc03b56da0ce892e9d3f10b4b5136037f28de906d2276d"),
    ("3_veined_0180.jpg", 51_131, "9dbe19a8284cd2b6c1bef09928acdbd9ccdf9ded707ddb6358221968165ce458"),
    ("4_veined_0131.jpg", 57_884, "9e6d2ae36b8755d2a530005b905c2a3f4e1bc94b1535b6fe6e1c553acfc2b54b"),
    ("5_veined_0157.jpg", 55_595, "7e34b2b445f50c7af9c86262be9af39c3ce43c61d039d8c44a4afba89d077ae1"),
    ("6_veined_0158.jpg", 16_981, "4f992fd0da74cc53d37c065699a73af9e42c06dc38b2a2f22673452458708ce6"),
    ("7_veined_0104.jpg", 51_305, "c43441149846718186ab4c01f61c476c96c748c1149defaf5366e2534431954c"),
    ("8_veined_0188.jpg", 68_666, "d32d40f567ee3f58d421b9e02265ce1c8f0fe1ed91d8dedaa282cdc114161f39"),
    ("9_veined_0189.jpg", 69_723, "ab3144757372f34153b29ddf1e2e80cbdf6079bb18233b220ad5dda594829d74"),
)
OBJECT_TEXTURES = _textures("object", OBJECT_FILES)
BACKGROUND_TEXTURES = _textures("background", BACKGROUND_FILES)

VGG16 = Asset(
    name="vgg16-397923af.pth",
    urls=("https://download.pytorch.org/models/vgg16-397923af.pth",),
    sha256="397923af",
    licence="BSD-3-Clause (torchvision)",
)
SQUEEZENET = Asset(
    name="squeezenet1_0_deepcompression_rgb.pth",
    urls=(),
    bytes=5_014_699,
    sha256="2e45d01b93e560340bbfe945be2c11e8a7e19e0ae254d4872f6cb549373901de",
    licence="BSD-2-Clause (songhan/SqueezeNet-Deep-Compression, converted to torchvision's keys and RGB)",
)


def _drive(key: str) -> str:
    """Google Drive's file `key`, confirmed: without the page that asks whether to go on with a file too big to scan."""
    return f"https://drive.usercontent.google.com/download?id={key}&export=download&confirm=t"


BIGGAN_DEEP_256 = Asset(
    name="biggan-deep-256-pytorch_model.bin",
    urls=("https://s3.amazonaws.com/models.huggingface.co/biggan/biggan-deep-256-pytorch_model.bin",),
    bytes=234_411_737,
    sha256="5900ef4065047e3aa0d1b66197b7f2664dceb59b27080e414ad57e203c485bc5",
    licence="MIT (huggingface/pytorch-pretrained-BigGAN, converted from DeepMind's weights)",
)
U2NET = Asset(
    name="u2net.pth",
    urls=(
        "https://huggingface.co/Carve/u2net-universal/resolve/10305d785481cf4b2eee1d447c39cd6e5f43d74b/full_weights.pth",
        _drive("1ao1ovG1Qtx4b7EoskHXmi2E9rp5CHLcZ"),
    ),
    bytes=176_290_937,
    sha256="10025a17f49cd3208afc342b589890e402ee63123d6f2d289a4a0903695cce58",
    licence="Apache-2.0 (xuebinqin/U-2-Net)",
)
U2NETP = Asset(
    name="u2netp.pth",
    urls=(_drive("1rbSTGKAE-MTxBYHd-51l2hMOQPT_7EPy"),),
    bytes=4_683_258,
    sha256="e7567cde013fb64813973ce6e1ecc25a80c05c3ca7adbc5a54f3c3d90991b854",
    licence="Apache-2.0 (xuebinqin/U-2-Net)",
)
U2NETP_FOLDED = Asset(
    name="u2netp_from_fp16_bnfolded.pth",
    urls=(),
    bytes=4_822_187,
    sha256="9db08d24b5477ba85943af081985a747704f269f9740aca115da4b9e2901dd1d",
    licence="Apache-2.0 (xuebinqin/U-2-Net, batch norms folded, from half precision)",
)
RESNET50_V1 = Asset(
    name="resnet50-0676ba61.pth",
    urls=("https://download.pytorch.org/models/resnet50-0676ba61.pth",),
    bytes=102_530_333,
    sha256="0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a",
    licence="BSD-3-Clause (torchvision)",
)
CGN_IMAGENET = Asset(
    name="cgn.pth",
    urls=(_drive("12yVFHPUjKmUFGnO2D4xVlTSpF8CUj136"),),
    sha256=None,
    kind="weights",
    holds=("f_shape.", "f_text.", "f_bg.", "u2net."),
    licence="MIT (autonomousvision/counterfactual_generative_networks)",
)
BACKGROUNDS_CHALLENGE = Asset(
    name="backgrounds_challenge_data.tar.gz",
    urls=(
        "https://github.com/MadryLab/backgrounds_challenge/releases/download/data/backgrounds_challenge_data.tar.gz",
    ),
    sha256=None,
    kind="tar.gz",
    holds=("mixed_same/val/", "mixed_rand/val/"),
    licence="made from ImageNet: its research terms (MadryLab/backgrounds_challenge)",
)
CUE_CONFLICT = Asset(
    name="ccd0c01d42c0a8a834e90ec141e7f24fa915dc23.tar.gz",
    urls=("https://github.com/rgeirhos/texture-vs-shape/archive/ccd0c01d42c0a8a834e90ec141e7f24fa915dc23.tar.gz",),
    sha256=None,
    kind="tar.gz",
    holds=("stimuli/style-transfer-preprocessed-512/",),
    licence="CC BY 4.0 (rgeirhos/texture-vs-shape; the stimuli are in stimuli/style-transfer-preprocessed-512)",
)
"""The repository at one commit: its name fixes the content, but not how the archive is packed."""

IMAGENET_C = tuple(
    Asset(
        name=f"{group}.tar",
        urls=(f"https://zenodo.org/records/2235448/files/{group}.tar",),
        sha256=None,
        md5=md5,
        licence="made from ImageNet: its research terms (hendrycks/robustness, Apache-2.0)",
    )
    for group, md5 in (
        ("noise", "e80562d7f6c3f8834afb1ecf27252745"),
        ("blur", "2d8e81fdd8e07fef67b9334fa635e45c"),
        ("weather", "33ffea4db4d93fe4a428c40a6ce0c25d"),
        ("digital", "89157860d7b10d5797849337ca2e5c03"),
    )
)

FROST_URL = "https://raw.githubusercontent.com/hendrycks/robustness/master/ImageNet-C/create_c/"
FROST_FILES = (
    ("frost1.png", 1_199_930, "ff9f907860bd7a835d459e32f9d588062b7f61ee267343cc7222b56753a14755"),
    ("frost2.png", 299_002, "fe211a89b336999c207a852ce05818d4545d0b57c5beadd824b4cc9d9a9b6137"),
    ("frost3.png", 299_002, "2d0d50b4a9bb213f38b024ef7768731bb83cc08d2f26b5766bbc167cdfa0e504"),
    ("frost4.jpg", 36_734, "3f8b91ca1a9fa7167b09e773da53f5ae60d0a1fd88f02a783f6e328a72887f6e"),
    ("frost5.jpg", 155_150, "5fc6a19df4a429ba68abdcc8f8a4278d4c9f81c9ccafd2c92ab0c8cf8992ebd2"),
    ("frost6.jpg", 90_185, "1f92b2f48408748085b68dd81d816ef239f42cef3029c25d041fcb6760fb4f25"),
)
"""The branch may move; the digests require the files that ImageNet-C was made with."""
FROST = tuple(
    Asset(name=name, urls=(FROST_URL + name,), bytes=size, sha256=sha256, licence="Apache-2.0 (hendrycks/robustness)")
    for name, size, sha256 in FROST_FILES
)
