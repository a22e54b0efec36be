"""The reduction as `stpipe` steps: thin wrappers that open models, call, stamp and return."""

from lyot.steps.align_refs import AlignRefsStep
from lyot.steps.background import BackgroundStep
from lyot.steps.hlsp import HlspStep
from lyot.steps.klip import KlipStep
from lyot.steps.outlier_detection import OutlierDetectionStep
from lyot.steps.resample import ResampleStep
from lyot.steps.stack_refs import StackRefsStep
