"""The steps that this package registers with `stpipe`, so that ``strun`` finds them."""


def get_steps() -> list[tuple[str, str, bool]]:
    """Return the steps and pipelines of the package."""
    return [
        ("lyot.pipeline.Coron3Pipeline", "calwebb_coron3", True),
        ("lyot.steps.AlignRefsStep", "align_refs", False),
        ("lyot.steps.BackgroundStep", "background", False),
        ("lyot.steps.HlspStep", "hlsp", False),
        ("lyot.steps.KlipStep", "klip", False),
        ("lyot.steps.OutlierDetectionStep", "outlier_detection", False),
        ("lyot.steps.ResampleStep", "resample", False),
        ("lyot.steps.StackRefsStep", "stack_refs", False),
    ]
