"""The parameters: frozen values whose fields say what they are, what they may be, and their unit.

Everything that a user reads or types about a parameter is made from its field: the ``spec`` of the
`stpipe` steps (`lyot.steps.base`), the options of the command line (`lyot.cli.options`), the
messages of the checks, the docstrings of the classes and the tables of the documentation.
"""

from lyot.parameters.analysis import (
    COMMANDS,
    CompanionParameters,
    ContrastParameters,
    ExclusionParameters,
    MassParameters,
    ObservationParameters,
    PsfParameters,
    SourceParameters,
    StatisticParameters,
)
from lyot.parameters.fields import (
    P,
    Parameter,
    Parameters,
    from_dict,
    from_names,
    parameter,
    parameters_of,
    to_dict,
    to_names,
)
from lyot.parameters.reduction import (
    AUTO,
    BY_CORRELATION,
    BY_MODEL,
    BY_RESIDUAL,
    BY_SYMMETRY,
    BY_TIME,
    FIRST_INTEGRATION,
    PROPAGATED,
    SCATTER,
    STRATEGIES,
    SURFACES,
    AlignInputs,
    AlignRecipe,
    BackgroundRecipe,
    CombineRecipe,
    ComputeParameters,
    FitInputs,
    HlspRecipe,
    LibraryRecipe,
    MemoryParameters,
    OutlierRecipe,
    Recipe,
    ReferenceParameters,
    SaveParameters,
    SkipParameters,
    StarParameters,
    SubtractRecipe,
)
from lyot.parameters.steps import (
    PIPELINE,
    STEPS,
    StepParameters,
    by_step,
    complete,
    parameters_of_step,
    read_steps,
)
