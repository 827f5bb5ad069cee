"""How kernels, artefacts and reports say what was chosen of a kernel."""

AS_BY_RULE = "as by rule"
"""Stands for the parameters where records of tuning say that none are faster than the rule's."""
