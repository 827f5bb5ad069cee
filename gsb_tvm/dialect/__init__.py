"""Ground floor: bit convention, house operators with their float meaning, NumPy oracle, errors."""
