"""The sciences: one folder each, beside what all tasks share."""

__all__ = [
    "anomaly",
    "augmentation",
    "base",
    "classification",
    "detection",
    "domain",
    "ellipticity",
    "generation",
    "intervals",
    "judged",
    "normalisation",
    "regression",
    "response_fit",
    "restoration",
    "run_options",
    "segmentation",
    "settings",
    "source_check",
    "symmetries",
    "test_time_augmentation",
]
