r"""Where a companion is and how bright, by exact forward modeling.

The residual about it is :math:`d = \sum_k a_k\,L\,p(x_k) + B\,c + \epsilon`: p is the off-axis
image at its position, times the transmission of the mask there; L what the subtraction does to any
source (an operator, made once; the positions then cost one product each); B a smooth background;
and :math:`\epsilon` noise with the covariance that the residual shows at the same separation.
"""

from lyot.analysis.companion.budget import ErrorBudget, ErrorTerm
from lyot.analysis.companion.fit import fit_companions
from lyot.analysis.companion.result import Bias, Companion, CompanionFit, Measured

__all__ = [
    "Bias",
    "Companion",
    "CompanionFit",
    "ErrorBudget",
    "ErrorTerm",
    "Measured",
    "fit_companions",
]
