"""``fastglow bench``: a correctness gate first, then speed beside peers in the same run.

``sweep`` runs the cases. For each it makes the inputs (``model``), builds the candidates
(``ours``, and ``peers`` from ``cpu_peers`` or ``cuda_peers``), lets through those whose audio is
right (``gate``), times them in interleaved rounds (``rounds``) on a device (``devices``) and
writes the figures down (``record``), which ``table`` and ``plot`` show. Everything here may
import PyTorch: the float64 reference needs it.
"""
