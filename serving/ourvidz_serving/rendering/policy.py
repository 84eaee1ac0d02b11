"""How patient a renderer is, and how much it holds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RenderPolicy:
    """The times and bounds of a renderer, the same for all its renders."""

    upload_patience_s: float = 600.0
    """How long an upload is tried again while storage is out of reach; then the render fails."""
    reference_patience_s: float = 30.0
    """How long reading the reference pictures of a render may take; its slot is taken meanwhile."""
    first_retry_s: float = 0.5
    """The longest first pause between two tries with storage; the bound doubles from try to try, up to some seconds."""
    settle_s: float = 5.0
    """How long a cancelled render may take to store the pictures that it has finished."""
    unfinished_outputs: int = 12
    """How many outputs of all renders may wait to be stored: two full batches, some 60 MB, or as many clips, which are
    files of some MB each but for the one that is being encoded. At the bound, the engine waits too."""
    remember_s: float = 300.0
    """How long it is remembered how a render ended."""
    remembered_renders: int = 1000
    """How many ended renders are remembered at most."""
