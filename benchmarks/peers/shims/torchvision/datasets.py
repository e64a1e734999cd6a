"""Imported by aimet_torch.utils for its data loaders, which are not used here."""
