"""Artefact and metadata, linking, session, verification."""
