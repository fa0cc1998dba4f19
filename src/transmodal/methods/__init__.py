"""The methods, a file for each published family. A new one is a file here, a line in `METHODS`, and a recipe."""

from transmodal.methods.any_mr import AnyMR
from transmodal.methods.atlas import Atlas
from transmodal.methods.baseline import Baseline
from transmodal.methods.cgan import CGAN
from transmodal.methods.cyclegan import CycleGAN
from transmodal.methods.gan import GAN
from transmodal.methods.mrgan import MRGAN
from transmodal.methods.prior import Prior
from transmodal.methods.regression import Regression
from transmodal.methods.segmentation import Segmentation
from transmodal.methods.tissues import Tissues

METHODS = {
    "any-mr": AnyMR,
    "atlas": Atlas,
    "baseline": Baseline,
    "cgan": CGAN,
    "cyclegan": CycleGAN,
    "gan": GAN,
    "mrgan": MRGAN,
    "prior": Prior,
    "regression": Regression,
    "segmentation": Segmentation,
    "tissues": Tissues,
}
