"""Everything that knows model formats: guards, import, folding of weights."""
